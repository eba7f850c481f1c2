"""The training loop, from the first image to the released generator."""

from collections.abc import Callable
from pathlib import Path

import torch

from gan_core.data.image_set import open_image_set
from gan_core.errors import FoundryError
from gan_core.training.batches import ImageBatches
from gan_core.training.course import Course
from gan_core.training.job import TrainingJob
from gan_core.training.memory import keep_freed_memory
from gan_core.training.processes import ALONE, Processes
from gan_core.training.trainer import Trainer


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
        should_stop: Asked before every step; a reason ends the training with a checkpoint.
        processes: Who trains together; the first of them decides and writes.

    Returns:
        None when the generator is complete, else the reason for stopping.

    Raises:
        FoundryError: The folder belongs to another job, or the training diverged.
    """
    # Load the images, construct the players, continue where a checkpoint stands.
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    torch.backends.cudnn.deterministic = True
    settings = job.training
    images = open_image_set(job.image_set)
    if images.sha256 != job.image_set_sha256:
        raise FoundryError(
            f"the images in {job.image_set} are {images.sha256[:16]}, but the job is for "
            f"{job.image_set_sha256[:16]}; materialize training_images and the generator again."
        )
    batches = ImageBatches(images.train, settings.seed, torch.device(job.device), processes)
    trainer = Trainer(job, images, processes)
    trainer.restore(folder)

    with Course(trainer, images, folder) as course:
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
            if course.is_due(settings.monitoring.interval_kimg):
                course.evaluate()
            if course.checkpoint_is_due:
                course.save()

        # Release the averaged generator.
        course.finish()
    return None
