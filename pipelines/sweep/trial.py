"""One trial: a training in a folder of its own, followed through its journal and cut short."""

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from gan_core.config import PipelineSettings, fingerprint
from gan_core.data.image_set import open_image_set
from gan_core.errors import FoundryError
from gan_core.training.job import (
    CHECKPOINT_FILE,
    DISCRIMINATOR_FILE,
    JOURNAL_FILE,
    LOCK_FILE,
    RELEASE_FOLDER,
    SHARING,
    SNAPSHOT_FOLDER,
    START_FOLDER,
)
from gan_core.training.journal import read_journal
from pipelines.devices import devices_to_oneself
from pipelines.launch import STOP_SECONDS, TrainingCrashedError, run_job, write_job
from pipelines.progress import publish
from pipelines.start_weights import fetch_start
from pipelines.sweep.study import Outcome

Report = Callable[[int, float], bool]


class TimeUpError(Exception):
    """The sweep's time is over; the trial has left a checkpoint."""


class _GivenUpError(Exception):
    """The pruner has given the trial up."""


@dataclass(frozen=True)
class TrialInputs:
    """What all trials of a sweep begin with, train on and are measured with.

    `start_from` is the number of a version, or `scratch`.
    """

    pipeline: str
    start_from: str | int
    image_set: Path
    image_set_sha256: str
    feature_network: Path
    feature_network_sha256: str


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial; see `TrialRecord`."""

    outcome: Outcome
    distance: float | None
    kimg: float
    seconds: float
    reason: str | None = None


def training_key(settings: PipelineSettings) -> str:
    """Of a trial's training folder: the same settings are the same training.

    How many processes share the work may change; where and how they compute may not.
    """
    training = settings.training.model_dump(mode="json")
    return fingerprint([settings.network, {k: v for k, v in training.items() if k not in SHARING}])


def train_trial(
    folder: Path,
    inputs: TrialInputs,
    settings: PipelineSettings,
    report: Report,
    on_rows: Callable[[], None],
    deadline: float | None,
) -> TrialResult:
    """Train a trial to its end, or until it is given up.

    Args:
        folder: Of its training; a checkpoint in it is continued.
        inputs: Images and feature network.
        settings: Of the trial.
        report: Told the number of each evaluation, from 1, and the smallest distance so far, those
            of an earlier attempt included; whether to give the trial up.
        on_rows: Called when the journal has grown.
        deadline: On the monotonic clock.

    Raises:
        TimeUpError: The deadline has passed; the trial can be continued.
        FoundryError: The training cannot be done for a reason that the user can mend.
        DagsterExecutionInterruptedError: SIGINT or SIGTERM came; the trial can be continued.
    """
    folder.mkdir(parents=True, exist_ok=True)
    follower = _Follower(folder / JOURNAL_FILE, report, on_rows, deadline)
    try:
        if not _has_ended(folder):
            _train(folder, inputs, settings, follower)
        follower.read()
    except _GivenUpError:
        return follower.result("pruned", f"given up at {follower.kimg:g} kimg")
    except TrainingCrashedError as error:
        return follower.result("failed", f"crashed: {str(error).splitlines()[-1]}")
    except FoundryError:
        if follower.divergence is None:
            raise
        return follower.result("pruned", follower.divergence)
    if follower.distance is None:
        return follower.result("failed", "the training ended before its first evaluation")
    return follower.result("complete")


def remove_weights(folder: Path) -> None:
    """Remove what only a training that goes on needs; journal, job, log and grids stay."""
    if not folder.exists():
        return
    # A trainer that still has the folder is about to end; what it leaves goes the next time.
    with (
        contextlib.suppress(filelock.Timeout),
        filelock.FileLock(folder / LOCK_FILE, timeout=STOP_SECONDS),
    ):
        for name in (CHECKPOINT_FILE, DISCRIMINATOR_FILE):
            (folder / name).unlink(missing_ok=True)
        for name in (SNAPSHOT_FOLDER, RELEASE_FOLDER, START_FOLDER):
            shutil.rmtree(folder / name, ignore_errors=True)


class _Follower:
    """Reads the journal from its beginning while a training writes it.

    Its own position makes an attempt see what earlier ones measured.
    """

    def __init__(
        self,
        journal: Path,
        report: Report,
        on_rows: Callable[[], None],
        deadline: float | None,
    ) -> None:
        self._journal, self._report, self._on_rows = journal, report, on_rows
        self._deadline = deadline
        self._position = 0
        self._evaluations = 0
        self.distance: float | None = None
        self.kimg = 0.0
        self.divergence: str | None = None
        self._seconds = 0.0

    def __call__(self, rows: list[dict[str, Any]]) -> None:
        """As `run_job` wants it; ends the training by an error."""
        for row in rows:
            if row["event"] == "progress":
                publish("training", "trial", **row)
        self.read()
        self.require_time()

    def require_time(self) -> None:
        """Raise `TimeUpError` when the deadline has passed."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise TimeUpError

    def read(self) -> None:
        """Take in what is new; raises `_GivenUpError`."""
        start = self._position
        for end, row in read_journal(self._journal, start):
            self._position = end
            self._take(row)
        if self._position > start:
            self._on_rows()

    def _take(self, row: dict[str, Any]) -> None:
        self.kimg = row["kimg"]
        if row["event"] in ("progress", "end"):
            self._seconds = row["seconds"]
        elif row["event"] == "alarm" and (row["name"], row["reaction"]) == ("non_finite", "stop"):
            self.divergence = f"diverged: {row['message']}"
        elif row["event"] == "evaluation":
            self._evaluations += 1
            found = row["distance"]
            self.distance = found if self.distance is None else min(self.distance, found)
            if self._report(self._evaluations, self.distance):
                raise _GivenUpError

    def result(self, outcome: Outcome, reason: str | None = None) -> TrialResult:
        return TrialResult(outcome, self.distance, self.kimg, self._seconds, reason)


def _has_ended(folder: Path) -> bool:
    return any(row["event"] == "end" for _, row in read_journal(folder / JOURNAL_FILE))


def _train(
    folder: Path, inputs: TrialInputs, settings: PipelineSettings, follower: _Follower
) -> None:
    origin = fetch_start(
        inputs.pipeline,
        inputs.start_from,
        settings.network,
        open_image_set(inputs.image_set),
        folder,
    )
    job = write_job(
        folder,
        inputs.pipeline,
        settings,
        image_set=inputs.image_set,
        image_set_sha256=inputs.image_set_sha256,
        feature_network=inputs.feature_network,
        feature_network_sha256=inputs.feature_network_sha256,
        start_sha256=origin.sha256 if origin else None,
    )
    with devices_to_oneself(
        job.device,
        job.training.processes,
        lambda: publish("waiting", "trial"),
        follower.require_time,
    ):
        run_job(folder, follower)
