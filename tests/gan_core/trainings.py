"""Running training jobs in tests, here or in a process, and reading what they leave."""

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from gan_core.released_files import WEIGHTS_FILE
from gan_core.training.checkpoint import read_progress
from gan_core.training.job import (
    CHECKPOINT_FILE,
    JOURNAL_FILE,
    LOCK_FILE,
    RELEASE_FOLDER,
    TrainingJob,
)
from gan_core.training.journal import read_journal
from gan_core.training.loop import train
from tests.conftest import PROJECT, subprocess_environment

CLOCK_FIELDS = {"time", "seconds", "images_per_second"}


def never() -> None:
    """A training that asks this is not stopped."""


def after_steps(steps: int) -> Callable[[], str | None]:
    """A request to stop when that many steps were made."""
    asked = itertools.count()
    return lambda: "enough" if next(asked) >= steps else None


def run_job(
    job: TrainingJob, folder: Path, should_stop: Callable[[], str | None] = never
) -> str | None:
    """Train in this process."""
    folder.mkdir(exist_ok=True)
    job.write(folder)
    return train(job, folder, should_stop)


def train_here(folder: Path, on_rows: Callable[[list[dict[str, Any]]], None]) -> None:
    """Do the job of a folder in this process, which has loaded what a new one would have to load.

    In the place of `pipelines.launch.run_job`; the journal's new lines are passed on at the end.
    """
    progress = read_progress(folder / CHECKPOINT_FILE)
    with filelock.FileLock(folder / LOCK_FILE):
        train(TrainingJob.read(folder), folder, never)
    journal = read_journal(folder / JOURNAL_FILE, progress.journal_bytes if progress else 0)
    on_rows([row for _, row in journal])


def released_bytes(folder: Path) -> bytes:
    """The released generator's weights."""
    return (folder / RELEASE_FOLDER / WEIGHTS_FILE).read_bytes()


def journal_rows(folder: Path, event: str | None = None) -> list[dict[str, Any]]:
    """The journal without what depends on the clock, or its rows of one event."""
    return [
        {key: value for key, value in row.items() if key not in CLOCK_FIELDS}
        for _, row in read_journal(folder / JOURNAL_FILE)
        if event in (None, row["event"])
    ]


def start_training(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start the training process of a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "gan_core.training", str(folder), *options],
        cwd=PROJECT,
        env=subprocess_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    """Wait until something holds; fail when it does not within the time.

    Asking takes a fifth of a core at most, which what is waited for needs.
    """
    end = time.monotonic() + seconds
    asked = time.monotonic()
    while not condition():
        answered = time.monotonic()
        assert answered < end, f"{what} did not happen within {seconds:g} seconds"
        time.sleep(max(0.005, 4 * (answered - asked)))
        asked = time.monotonic()


def wait_until_training(folder: Path) -> None:
    """Wait until the training process of a folder has shown images."""
    wait_until(lambda: journal_rows(folder, "progress"), "the first journal row")
