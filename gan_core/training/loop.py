"""The training loop, from the first image to the released generator."""

from collections.abc import Callable
from pathlib import Path

import torch

from gan_core.data.image_set import open_image_set
from gan_core.device import choose_device
from gan_core.errors import FoundryError, OutOfMemoryError
from gan_core.training.batches import ImageBatches
from gan_core.training.course import Course
from gan_core.training.job import TrainingJob
from gan_core.training.memory import keep_freed_memory
from gan_core.training.processes import ALONE, Processes
from gan_core.training.trainer import Trainer

# In messages of errors that have no class of their own.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


def train(
    job: TrainingJob,
    folder: Path,
    should_stop: Callable[[], str | None],
    processes: Processes = ALONE,
) -> str | None:
    """Train until the budget is spent, or until asked to stop.

    Args:
        job: What to train.
        folder: Gets the journal, grids, checkpoints and, at the end, the released generator. A
            checkpoint of the same job in it is continued, to the same bits; one of the same job
            with a smaller budget is continued from where that ended.
        should_stop: Asked before every step, and during evaluations, which are begun again when
            the training goes on; a reason ends the training with a checkpoint.
        processes: Who trains together; the first of them decides and writes.

    Returns:
        None when the generator is complete, else the reason for stopping.

    Raises:
        FoundryError: The folder belongs to another job, or the training diverged.
        OutOfMemoryError: It does not fit into the memory; the last checkpoint stays.
    """
    try:
        return _train(job, folder, should_stop, processes)
    except (RuntimeError, MemoryError) as error:
        of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not of_memory and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        settings = job.training
        raise OutOfMemoryError(
            f"the training does not fit into the memory of this {job.device.upper()}: its "
            f"training.batch_size is {settings.batch_size}, of which it holds "
            f"{settings.batch_size // settings.processes // settings.accumulation_steps} at a "
            "time; make it smaller, or training.accumulation_steps larger."
        ) from error


def _train(
    job: TrainingJob, folder: Path, should_stop: Callable[[], str | None], processes: Processes
) -> str | None:
    # Load the images, construct the players, continue where a checkpoint stands.
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    choose_device(job.device)
    settings = job.training
    images = open_image_set(job.image_set)
    if images.sha256 != job.image_set_sha256:
        raise FoundryError(
            f"the images in {job.image_set} are {images.sha256[:16]}, but the job is for "
            f"{job.image_set_sha256[:16]}; materialize training_images and the generator again."
        )
    batches = ImageBatches(
        images.train,
        settings.seed,
        torch.device(job.device),
        settings.accumulation_steps,
        processes,
    )
    trainer = Trainer(job, images, processes)
    trainer.restore(folder)

    with Course(trainer, images, folder) as course:
        # An evaluation that a stop has cut off comes first.
        if course.evaluation_is_due and (reason := course.evaluate(should_stop)):
            course.save()
            return reason

        # Train.
        while not course.is_over:
            if reason := processes.agree(should_stop()):
                course.save()
                return reason
            trainer.step(*batches(course.images, settings.batch_size), course.images)
            course.advance()

            # Report: a journal line, a grid, an evaluation, a checkpoint, each at its interval.
            if course.is_due(settings.logging_interval_kimg):
                course.write_line()
            if course.is_due(settings.grid_interval_kimg):
                course.write_grid()
            if course.is_due(settings.monitoring.interval_kimg) and (
                reason := course.evaluate(should_stop)
            ):
                course.save()
                return reason
            if course.checkpoint_is_due:
                course.save_on_the_way()

        # Release the averaged generator.
        course.finish()
    return None
