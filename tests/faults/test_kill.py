"""Trainings that are killed without warning, again and again."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from gan_core.training.checkpoint import read_progress
from gan_core.training.job import CHECKPOINT_FILE, TrainingJob
from tests.gan_core.trainings import (
    journal_rows,
    released_bytes,
    run_job,
    start_training,
    wait_until,
)

KILLS = 50 if os.environ.get("GAN_FOUNDRY_FAULTS") == "long" else 3
MOST_SECONDS = 0.2  # of training before a kill


def images_at_checkpoint(folder: Path) -> int:
    progress = read_progress(folder / CHECKPOINT_FILE)
    return progress.images if progress else 0


def kill_at_an_instant(process: "subprocess.Popen[str]", folder: Path, seconds: float) -> None:
    """Kill the training so long after its first new checkpoint."""
    before = images_at_checkpoint(folder)
    wait_until(lambda: images_at_checkpoint(folder) > before, "a checkpoint")
    time.sleep(seconds)
    process.kill()


def kill_while_a_checkpoint_is_written(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Kill the training while the temporary file of a new checkpoint is there."""
    temporary = (folder / CHECKPOINT_FILE).with_suffix(".tmp")
    before = images_at_checkpoint(folder)
    wait_until(lambda: images_at_checkpoint(folder) > before, "a checkpoint")
    while not temporary.exists() and process.poll() is None:
        pass
    process.kill()


def test_a_training_killed_at_random_instants_ends_like_an_undisturbed_one(
    make_job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    kimg = 4.0 * KILLS  # each attempt trains less than a second
    job = make_job(
        kimg=kimg,
        checkpoint_interval_seconds=0.05,
        grid_interval_kimg=1.0,
        monitoring={"interval_kimg": 1.0, "samples": 32},
        augmentation={"transforms": ("translation",), "strength": "adaptive"},
    )
    run_job(job, tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    folder.mkdir()
    job.write(folder)
    seed = random.SystemRandom().randrange(10**6)
    print("seed of the instants:", seed)  # noqa: T201  # shown where the test fails
    stream = random.Random(seed)  # noqa: S311

    for kill in range(KILLS):
        process = start_training(folder)
        if kill % 2:
            kill_while_a_checkpoint_is_written(process, folder)
        else:
            kill_at_an_instant(process, folder, stream.uniform(0, MOST_SECONDS))
        _, told = process.communicate()
        assert process.returncode == -signal.SIGKILL, told
        assert 0 < images_at_checkpoint(folder) < job.total_images

    process = start_training(folder)
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert released_bytes(folder) == released_bytes(tmp_path / "undisturbed")
    assert journal_rows(folder) == journal_rows(tmp_path / "undisturbed")
