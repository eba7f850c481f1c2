"""The training loop, from the first image to the released generator."""

import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gan_core.data.image_set import open_image_set
from gan_core.errors import FoundryError
from gan_core.image_grid import grid_columns, make_grid, save_png
from gan_core.training.batches import ImageBatches
from gan_core.training.checkpoint import Progress
from gan_core.training.job import (
    GRID_FOLDER,
    JOURNAL_FILE,
    RELEASE_FOLDER,
    RESULT_FILE,
    TrainingJob,
)
from gan_core.training.journal import Journal
from gan_core.training.step import SCALARS, learning_rate_factor
from gan_core.training.trainer import Trainer

GRID_ROWS = 8


def train(job: TrainingJob, folder: Path, should_stop: Callable[[], str | None]) -> str | None:
    """Train until the budget is spent, or until asked to stop.

    Args:
        job: What to train.
        folder: Gets the journal, grids, checkpoints and, at the end, the released generator. A
            checkpoint of the same job in it is continued, to the same bits.
        should_stop: Asked before every step; a reason ends the training with a checkpoint.

    Returns:
        None when the generator is complete, else the reason for stopping.

    Raises:
        FoundryError: The folder belongs to another job, or a loss became NaN or infinite.
    """
    # Load the images, construct the players, continue where a checkpoint stands.
    torch.set_num_threads(job.threads)
    settings = job.training
    images = open_image_set(job.image_set)
    if images.sha256 != job.image_set_sha256:
        raise FoundryError(
            f"the images in {job.image_set} are {images.sha256[:16]}, but the job is for "
            f"{job.image_set_sha256[:16]}; materialize training_images and the generator again."
        )
    batches = ImageBatches(images.train, settings.seed, torch.device(job.device))
    trainer = Trainer(job, images)
    trainer.restore(folder)
    shown, total = trainer.progress.images, job.total_images
    steps_since_line = trainer.progress.steps_since_line
    clock = _Clock(trainer.progress.seconds, shown)
    (folder / GRID_FOLDER).mkdir(exist_ok=True)

    with Journal(folder / JOURNAL_FILE, trainer.progress.journal_bytes) as journal:

        def save() -> None:
            _check_finite(trainer.sums.tolist(), shown)
            progress = Progress(
                job.fingerprint, shown, clock.seconds(), journal.sync(), steps_since_line
            )
            trainer.save(folder, progress)
            clock.checkpoint_saved()

        if trainer.progress.journal_bytes == 0:
            journal.write("start", time=time.time(), **_describe(trainer))
            _write_grid(trainer, folder, shown, journal)

        # Train.
        while shown < total:
            if reason := should_stop():
                save()
                return reason
            trainer.step(*batches(shown, settings.batch_size), shown)
            before, shown = shown, shown + settings.batch_size
            steps_since_line += 1

            # Report: a journal line, a grid, a checkpoint, each at its interval.
            if _due(before, shown, settings.logging_interval_kimg, total):
                means = (trainer.sums / steps_since_line).tolist()
                _check_finite(means, shown)
                journal.write(
                    "progress",
                    time=time.time(),
                    images=shown,
                    kimg=shown / 1000,
                    total_kimg=total / 1000,
                    seconds=clock.seconds(),
                    images_per_second=clock.images_per_second(shown),
                    learning_rate_factor=learning_rate_factor(
                        before, total, settings.learning_rate_decay_start
                    ),
                    **dict(zip(SCALARS, means, strict=True)),
                )
                trainer.sums.zero_()
                steps_since_line = 0
            if _due(before, shown, settings.grid_interval_kimg, total):
                _write_grid(trainer, folder, shown, journal)
            if shown < total and clock.since_checkpoint() > settings.checkpoint_interval_seconds:
                save()

        # Release the averaged generator.
        if trainer.progress.images < total:
            journal.write("end", time=time.time(), images=shown, seconds=clock.seconds())
            save()
        release = folder / RELEASE_FOLDER
        release.mkdir(exist_ok=True)
        trainer.released().save(release)
        result = {"images": shown, "seconds": trainer.progress.seconds}
        (folder / RESULT_FILE).write_text(json.dumps(result))
    return None


class _Clock:
    """Training time over all attempts, and the time since things were last done."""

    def __init__(self, seconds: float, images: int) -> None:
        self._start = time.monotonic() - seconds
        self._checkpoint = time.monotonic()
        self._line = (time.monotonic(), images)

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def images_per_second(self, images: int) -> float:
        """Since the last time this was asked."""
        now = time.monotonic()
        (last, last_images), self._line = self._line, (now, images)
        return (images - last_images) / max(now - last, 1e-9)

    def since_checkpoint(self) -> float:
        return time.monotonic() - self._checkpoint

    def checkpoint_saved(self) -> None:
        self._checkpoint = time.monotonic()


def _due(before: int, shown: int, interval_kimg: float, total: int) -> bool:
    """Whether a multiple of the interval was passed by this step, or the end was reached."""
    interval = interval_kimg * 1000
    return shown // interval > before // interval or shown == total


def _check_finite(scalars: list[float], shown: int) -> None:
    for name, value in zip(SCALARS, scalars, strict=True):
        if not math.isfinite(value):
            raise FoundryError(
                f"the training diverged: {name} was {value} at {shown / 1000:g} kimg; lower "
                "training.generator_learning_rate, training.discriminator_learning_rate or "
                "training.r1_gamma."
            )


def _describe(trainer: Trainer) -> dict[str, Any]:
    """What the journal's first line says of the machine and the networks."""
    job = trainer.job
    return {
        "device": torch.cuda.get_device_name() if job.device == "cuda" else _processor_name(),
        "precision": job.precision,
        "threads": job.threads,
        "torch": torch.__version__,
        "generator_parameters": sum(p.numel() for p in trainer.game.generator.parameters()),
        "discriminator_parameters": sum(p.numel() for p in trainer.game.discriminator.parameters()),
    }


def _processor_name() -> str:
    """As Linux names it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _write_grid(trainer: Trainer, folder: Path, shown: int, journal: Journal) -> None:
    """A grid of samples from the same latents every time, as PNG, and its line in the journal."""
    classes = trainer.config.classes
    columns = grid_columns(64, classes)
    count = columns * GRID_ROWS
    labels = [index % max(classes, 1) for index in range(count)]
    pixels = trainer.released().sample(count, seed=trainer.job.training.seed, labels=labels)
    file = f"{GRID_FOLDER}/kimg-{shown / 1000:010.3f}.png"
    save_png(make_grid(pixels, columns), folder / file)
    journal.write("grid", time=time.time(), images=shown, kimg=shown / 1000, file=file)
