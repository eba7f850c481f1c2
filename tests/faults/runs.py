"""Whole runs of the command line that a test disturbs, and the trainers they start."""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from gan_core.released_files import WEIGHTS_FILE
from gan_core.training.checkpoint import read_progress
from gan_core.training.job import CHECKPOINT_FILE, RELEASE_FOLDER
from tests.conftest import PROJECT, subprocess_environment
from tests.e2e.conftest import GAN_FOUNDRY

StartRun = Callable[..., "StartedRun"]

KIMG = 16  # long enough to be disturbed, also where it takes six seconds
SETTINGS = [
    f"training.kimg={KIMG}",
    "evaluation.checks.blocking=false",
    "training.threads=1",
    "training.checkpoint_interval_seconds=0.5",
    "network.generator_channels=[32, 16, 16]",
    "feature_network.epochs=1",
]


class StartedRun:
    """`gan-foundry run digits` with a short training, in a session and a home of its own.

    Args:
        home: Dagster's home.
        output: File for what it prints.
        arguments: More than the short training's settings.
    """

    def __init__(self, home: Path, output: Path, *arguments: str) -> None:
        self.home = home
        self._output = output
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [GAN_FOUNDRY, "run", "digits", *settings, *arguments],
                env=subprocess_environment(DAGSTER_HOME=str(home)),
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def shown(self) -> str:
        return self._output.read_text()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float = 120.0) -> int:
        """The exit status; fails with what was shown when the run takes longer."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the run did not end within {seconds:g} s:\n{self.shown}"
            ) from None

    def is_training(self) -> bool:
        """Whether it trains, and a checkpoint of the training is there; fails if it has ended."""
        assert self.alive, self.shown
        return bool(trainers(self.home)) and images_at_checkpoint(self.home) > 0

    def end(self) -> None:
        """Kill what is left of the session, which the trainer belongs to."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def trainers(home: Path) -> list[psutil.Process]:
    """The training processes below a home that are alive."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            words = process.cmdline()  # of a zombie: empty
            if "gan_core.training" in words and any(str(home) in word for word in words):
                found.append(process)
    return found


def images_at_checkpoint(home: Path) -> int:
    """Images shown at the latest checkpoint of an unfinished training; 0 without one."""
    checkpoints = home.glob(f"store/digits/generator/*.partial/{CHECKPOINT_FILE}")
    progress = [read_progress(path) for path in checkpoints]
    return max((found.images for found in progress if found is not None), default=0)


def released_weights(home: Path) -> bytes:
    """Of the only generator below a home."""
    (weights,) = home.glob(f"store/digits/generator/*/{RELEASE_FOLDER}/{WEIGHTS_FILE}")
    return weights.read_bytes()
