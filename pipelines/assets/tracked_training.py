"""The MLflow run of a training: opened by its key, fed from its journal, shared by the stages."""

import time
from pathlib import Path
from typing import Any

import dagster as dg

from gan_core.errors import FoundryError
from gan_core.training.job import CHECKPOINT_FILE, JOURNAL_FILE, TrainingJob
from pipelines.assets.stage import StageContext, inline_png
from pipelines.progress import publish
from pipelines.tracking import TrackedRun, dagster_run_url, open_run, tracking_errors

LOSSES = ("generator_loss", "discriminator_loss")  # a line lacks what none of its steps had
SHIP_SECONDS = 5.0
RETRY_SECONDS = 30.0
EVENT_SECONDS = 5.0  # between two events in Dagster's log
OBSERVED_IMAGE_BYTES = 60_000
OBSERVATION_SECONDS = 30.0  # between two that carry numbers and, where there is a new one, a grid


def tracked_run(stage: StageContext, path: Path) -> TrackedRun:
    """The MLflow run of a finished training, with its whole journal shipped.

    Raises:
        FoundryError: MLflow cannot be used.
    """
    run = _open_run(stage, path.name, path)
    with tracking_errors():
        run.ship_journal(path, path / JOURNAL_FILE, (path / JOURNAL_FILE).stat().st_size)
        if not run.is_finished:  # one that is keeps the time at which it ended
            run.end("FINISHED")
    return run


def tracked_run_if_reachable(stage: StageContext, path: Path) -> TrackedRun | None:
    """The same, or None: a tracking server that is down does not undo a training."""
    try:
        return tracked_run(stage, path)
    except FoundryError as error:
        stage.dagster.log.warning(f"the learning curves wait for the evaluation: {error}")
        return None


def _dagster_tags(run_id: str) -> dict[str, str]:
    """The way from MLflow's run to Dagster's; the note is what MLflow's page shows as a link."""
    url = dagster_run_url(run_id)
    return {
        "dagster.run_id": run_id,
        "dagster.run_url": url,
        "mlflow.note.content": f"Trained in [Dagster's run {run_id[:8]}]({url}).",
    }


def _open_run(stage: StageContext, key: str, folder: Path) -> TrackedRun:
    job = TrainingJob.read(folder)
    tags = {
        **_dagster_tags(stage.run_id),
        "pipeline": stage.pipeline,
        "data.sha256": job.image_set_sha256,
        "environment.device": job.device,
        "environment.precision": job.precision,
        "environment.threads": job.threads,
        "environment.processes": job.training.processes,
    }
    return open_run(stage.pipeline, stage.settings, key, tags)


class JournalFollower:
    """Passes the journal on while it grows: to MLflow, to Dagster's log, to who watches.

    MLflow gets what a checkpoint has made final. If it is down, the training goes on without it.
    Dagster gets one event in `EVENT_SECONDS` at most, beside alarms: a line, and now and then an
    observation of the asset with numbers and the latest grid.
    """

    def __init__(self, stage: StageContext, key: str, folder: Path) -> None:
        self._stage = stage
        self._key = key
        self._folder = folder
        self._run: TrackedRun | None = None
        self._next_shipment = 0.0
        self._next_event = 0.0
        self._next_observation = 0.0
        self._grid: str | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> None:
        progress = [row for row in rows if row["event"] == "progress"]
        for row in progress:
            publish("training", self._stage.stage, **row)
        for row in rows:
            if row["event"] == "alarm":
                self._stage.dagster.log.warning(describe_alarm(row))
            elif row["event"] == "grid":
                self._grid = row["file"]
        now = time.monotonic()
        if progress and now >= self._next_event:
            self._next_event = now + EVENT_SECONDS
            if now >= self._next_observation:
                self._next_observation = now + OBSERVATION_SECONDS
                self._observe(progress[-1])
            else:
                self._stage.dagster.log.info(describe_row(progress[-1]))
        if now >= self._next_shipment:
            self._next_shipment = now + (SHIP_SECONDS if self._ship_durable() else RETRY_SECONDS)

    def _observe(self, row: dict[str, Any]) -> None:
        """Show where the training stands on the asset's page, too."""
        metadata = {
            "kimg": row["kimg"],
            "share_done": row["kimg"] / row["total_kimg"],
            "images_per_second": row["images_per_second"],
            **{name: row[name] for name in LOSSES if name in row},
            "seconds_left": seconds_left(row),
            **({} if self._run is None else {"mlflow_run": dg.MetadataValue.url(self._run.url)}),
        }
        if self._grid is not None:
            content = (self._folder / self._grid).read_bytes()
            metadata["latest_grid"] = inline_png(content, "latest samples", OBSERVED_IMAGE_BYTES)
            self._grid = None
        self._stage.dagster.log_event(
            dg.AssetObservation(
                [self._stage.pipeline, self._stage.stage], describe_row(row), metadata=metadata
            )
        )

    def _ship_durable(self) -> bool:
        from gan_core.training.checkpoint import read_progress

        checkpoint = read_progress(self._folder / CHECKPOINT_FILE)
        try:
            with tracking_errors():
                if self._run is None:
                    run = _open_run(self._stage, self._key, self._folder)
                    run.begin()
                    run.set_tags(_dagster_tags(self._stage.run_id))
                    self._run = run
                if checkpoint is not None:
                    self._run.ship_journal(
                        self._folder, self._folder / JOURNAL_FILE, checkpoint.journal_bytes
                    )
        except FoundryError as error:
            self._stage.dagster.log.warning(f"training goes on without MLflow: {error}")
            return False
        return True

    def fail(self) -> None:
        """Mark the MLflow run as failed, if it can be reached; a later attempt may finish it."""
        try:
            self._run = self._run or _open_run(self._stage, self._key, self._folder)
            with tracking_errors():
                self._run.end("FAILED")
        except FoundryError as error:
            self._stage.dagster.log.warning(f"MLflow was not told of the failure: {error}")

    def interrupt(self) -> None:
        """Mark the MLflow run as interrupted, if there is one; a later attempt may finish it."""
        if self._run is None:
            return  # who interrupts does not wait until there is one
        try:
            with tracking_errors():
                self._run.end("KILLED")
        except FoundryError as error:
            self._stage.dagster.log.warning(f"MLflow was not told of the interruption: {error}")


def describe_alarm(row: dict[str, Any]) -> str:
    """An alarm of the journal for people."""
    done = {
        "note": "noted",
        "roll_back": "rolled back to the best snapshot, with lower learning rates",
        "stop": "stopped",
    }
    return f"alarm at {row['kimg']:g} kimg: {row['message']}; {done[row['reaction']]}"


def seconds_left(row: dict[str, Any]) -> float:
    """Of a training, at the speed of a journal line."""
    images_left = (row["total_kimg"] - row["kimg"]) * 1000
    return float(images_left / max(row["images_per_second"], 1e-9))


def describe_row(row: dict[str, Any]) -> str:
    """A journal line for people."""
    losses = [f"{name.replace('_', ' ')} {row[name]:.3f}, " for name in LOSSES if name in row]
    return (
        f"{row['kimg']:.1f} of {row['total_kimg']:.1f} kimg, {row['images_per_second']:.0f} img/s, "
        f"{''.join(losses)}{seconds_left(row):.0f} s left"
    )
