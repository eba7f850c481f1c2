"""MLflow's side of a sweep: a parent run, and a child run for each trial.

A tracking server that is down stops no sweep: what it did not get is sent when it answers again, at
the sweep's end or when it is run again.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gan_core.config import PipelineSettings
from gan_core.errors import FoundryError
from gan_core.training.job import JOURNAL_FILE
from pipelines import tracking
from pipelines.assets.tracked_training import RETRY_SECONDS, SHIP_SECONDS
from pipelines.progress import publish
from pipelines.sweep.study import Outcome, TrialRecord
from pipelines.tracking import RunStatus, TrackedRun

SWEEP_TAG = "gan_foundry.sweep_key"
TRIAL_TAG = "gan_foundry.sweep_trial"
STATE_TAG = "state"
STATUSES: dict[Outcome, RunStatus] = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}


@dataclass
class SweepRuns:
    """The runs of one sweep.

    Attributes:
        pipeline: Its experiment.
        key: Of the sweep.
        settings: Of the pipeline.
        tags: Of the parent run, such as the images' hash.
    """

    pipeline: str
    key: str
    settings: PipelineSettings
    tags: Mapping[str, Any]
    _parent: TrackedRun | None = None
    _children: dict[int, TrackedRun] = field(default_factory=dict)
    _next: float = 0.0

    @property
    def parent_id(self) -> str | None:
        """Of the parent run, if it could be reached."""
        return self._parent.run_id if self._parent else None

    def follow(self, index: int, settings: PipelineSettings, folder: Path) -> None:
        """Send what a checkpoint has made final of a running trial's journal, now and then."""
        from gan_core.training.checkpoint import read_progress
        from gan_core.training.job import CHECKPOINT_FILE

        if time.monotonic() < self._next:
            return
        progress = read_progress(folder / CHECKPOINT_FILE)
        length = progress.journal_bytes if progress else 0
        sent = self._try(lambda: self._ship(index, settings, folder, length))
        self._next = time.monotonic() + (SHIP_SECONDS if sent else RETRY_SECONDS)

    def finish(self, record: TrialRecord, settings: PipelineSettings, folder: Path) -> bool:
        """Complete a trial's run; whether MLflow has it."""
        return self._try(lambda: self._finish(record, settings, folder))

    def finish_missing(self, trials: Iterable[tuple[TrialRecord, PipelineSettings, Path]]) -> None:
        """Complete the runs of all trials that MLflow does not have."""

        def finish() -> None:
            have = self._finished_trials()
            for record, settings, folder in trials:
                if record.index not in have:
                    self._finish(record, settings, folder)

        self._try(finish)

    def end(self, status: RunStatus, metrics: Mapping[str, float], files: Iterable[Path]) -> None:
        """Mark the sweep as over, with its plots and its winner."""

        def end() -> None:
            parent = self._open_parent()
            parent.log_metrics(metrics)
            parent.log_files(files, "sweep")
            parent.end(status)

        self._try(end)

    def interrupt(self, index: int) -> None:
        """Mark the sweep and a trial as interrupted, if they have runs."""

        def interrupt() -> None:
            for run in (self._children.get(index), self._parent):
                if run is not None:
                    run.end("KILLED")

        self._try(interrupt)

    def _open_parent(self) -> TrackedRun:
        if self._parent is None:
            run = tracking.open_run(self.pipeline, self.settings, self.key, self.tags, SWEEP_TAG)
            run.begin("sweep")
            self._parent = run
        return self._parent

    def _open_child(self, index: int, settings: PipelineSettings) -> TrackedRun:
        if index not in self._children:
            tags = {
                "mlflow.parentRunId": self._open_parent().run_id,
                STATE_TAG: "running",
            }
            key = f"{self.key}/{index}"
            run = tracking.open_run(self.pipeline, settings, key, tags, TRIAL_TAG)
            run.begin(f"trial {index}")
            self._children[index] = run
        return self._children[index]

    def _ship(self, index: int, settings: PipelineSettings, folder: Path, length: int) -> None:
        child = self._open_child(index, settings)
        child.ship_journal(folder, folder / JOURNAL_FILE, length)

    def _finish(self, record: TrialRecord, settings: PipelineSettings, folder: Path) -> None:
        journal = folder / JOURNAL_FILE
        length = journal.stat().st_size if journal.exists() else 0
        self._ship(record.index, settings, folder, length)
        child = self._children[record.index]
        child.set_tags({STATE_TAG: record.outcome, "reason": record.reason})
        if record.distance is not None:
            child.log_metrics({"sweep/distance": record.distance})
        child.end(STATUSES[record.outcome])

    def _finished_trials(self) -> set[int]:
        parent = self._open_parent()
        query = f"tags.`mlflow.parentRunId` = '{parent.run_id}'"
        return {
            int(run.data.tags[TRIAL_TAG].rpartition("/")[2])
            for run in parent.client.search_runs([parent.experiment_id], query)
            if run.data.tags.get(STATE_TAG) in STATUSES
        }

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            with tracking.tracking_errors():
                action()
        except FoundryError as error:
            publish("note", "sweep", text=f"the sweep goes on without MLflow: {error}")
            return False
        return True
