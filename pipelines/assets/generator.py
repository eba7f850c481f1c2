"""`generator`: the adversarial training, in a process of its own, followed through its journal."""

import time
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg

from gan_core.errors import FoundryError
from gan_core.training.job import (
    CHECKPOINT_FILE,
    GRID_FOLDER,
    JOURNAL_FILE,
    RELEASE_FOLDER,
    TrainingJob,
)
from gan_core.training.journal import read_journal
from pipelines.assets.stage import Stage, StageContext, StageResult, inline_png
from pipelines.launch import run_job, write_job
from pipelines.progress import publish
from pipelines.store import open_stage
from pipelines.tracking import TrackedRun, dagster_run_url, open_run

SHIP_SECONDS = 5.0
RETRY_SECONDS = 30.0
LOG_SECONDS = 5.0


def _work(stage: StageContext) -> StageResult:
    from gan_core.data.image_set import open_image_set

    image_folder = stage.upstream("training_images")
    images = open_image_set(image_folder)
    settings = stage.settings
    path = stage.path(images.sha256, settings.network, settings.training)
    with open_stage(path, resumable=True) as folder:
        if folder.working:
            write_job(stage.pipeline, settings, image_folder, images.sha256, folder.working)
            follower = _Follower(stage, path.name, folder.working)
            run_job(folder.working, follower)
    run = _tracked_run_if_reachable(stage, path)
    rows = [row for _, row in read_journal(path / JOURNAL_FILE)]
    return StageResult(path.name, folder.reused, _metadata(path, rows, run))


def tracked_run(stage: StageContext, path: Path) -> TrackedRun:
    """The MLflow run of a finished training, with its whole journal shipped.

    Raises:
        FoundryError: MLflow cannot be used.
    """
    run = _open_run(stage, path.name, path)
    _ship(run, path, (path / JOURNAL_FILE).stat().st_size)
    run.finish()
    return run


def _tracked_run_if_reachable(stage: StageContext, path: Path) -> TrackedRun | None:
    """The same, or None: a tracking server that is down does not undo a training."""
    try:
        return tracked_run(stage, path)
    except FoundryError as error:
        stage.dagster.log.warning(f"the learning curves wait for the evaluation: {error}")
        return None


def _open_run(stage: StageContext, key: str, folder: Path) -> TrackedRun:
    run_id, job = stage.run_id, TrainingJob.read(folder)
    tags = {
        "dagster.run_id": run_id,
        "dagster.run_url": dagster_run_url(run_id),
        "pipeline": stage.pipeline,
        "data.sha256": job.image_set_sha256,
        "environment.device": job.device,
        "environment.precision": job.precision,
        "environment.threads": job.threads,
    }
    return open_run(stage.pipeline, stage.settings, key, tags)


def _ship(run: TrackedRun, folder: Path, durable_bytes: int) -> None:
    from mlflow.exceptions import MlflowException

    try:
        run.ship_journal(folder, folder / JOURNAL_FILE, durable_bytes)
    except (MlflowException, OSError) as error:
        raise FoundryError(
            f"MLflow did not take the journal ({str(error).splitlines()[0]}); check that its "
            "server runs."
        ) from error


class _Follower:
    """Passes the journal on while it grows: to MLflow, to Dagster's log, to who watches.

    MLflow gets what a checkpoint has made final. If it is down, the training goes on without it.
    """

    def __init__(self, stage: StageContext, key: str, folder: Path) -> None:
        self._stage = stage
        self._key = key
        self._folder = folder
        self._run: TrackedRun | None = None
        self._next_shipment = 0.0
        self._next_log = 0.0

    def __call__(self, rows: list[dict[str, Any]]) -> None:
        progress = [row for row in rows if row["event"] == "progress"]
        for row in progress:
            publish("training", self._stage.stage, **row)
        now = time.monotonic()
        if progress and now >= self._next_log:
            self._next_log = now + LOG_SECONDS
            self._stage.dagster.log.info(describe_row(progress[-1]))
        if now >= self._next_shipment:
            self._next_shipment = now + (SHIP_SECONDS if self._ship_durable() else RETRY_SECONDS)

    def _ship_durable(self) -> bool:
        from gan_core.training.checkpoint import read_progress

        checkpoint = read_progress(self._folder / CHECKPOINT_FILE)
        try:
            self._run = self._run or _open_run(self._stage, self._key, self._folder)
            if checkpoint is not None:
                _ship(self._run, self._folder, checkpoint.journal_bytes)
        except FoundryError as error:
            self._stage.dagster.log.warning(f"training goes on without MLflow: {error}")
            return False
        return True


def describe_row(row: dict[str, Any]) -> str:
    """A journal line for people."""
    seconds_left = (row["total_kimg"] - row["kimg"]) * 1000 / max(row["images_per_second"], 1e-9)
    return (
        f"{row['kimg']:.1f} of {row['total_kimg']:.1f} kimg, {row['images_per_second']:.0f} img/s, "
        f"generator loss {row['generator_loss']:.3f}, discriminator loss "
        f"{row['discriminator_loss']:.3f}, {seconds_left:.0f} s left"
    )


def _metadata(path: Path, rows: list[dict[str, Any]], run: TrackedRun | None) -> dict[str, Any]:
    from gan_core.data.hashing import file_sha256
    from gan_core.generator import WEIGHTS_FILE

    start = next(row for row in rows if row["event"] == "start")
    progress = [row for row in rows if row["event"] == "progress"]
    last_grid = [row["file"] for row in rows if row["event"] == "grid"][-1]
    links = (
        {}
        if run is None
        else {
            "mlflow_run": dg.MetadataValue.url(run.url),
            "mlflow_run_id": run.run_id,
        }
    )
    return {
        "kimg": progress[-1]["kimg"],
        "training_seconds": progress[-1]["seconds"],
        "images_per_second": median(row["images_per_second"] for row in progress),
        "generator_loss": progress[-1]["generator_loss"],
        "discriminator_loss": progress[-1]["discriminator_loss"],
        "device": f"{start['device']}, {start['threads']} threads, {start['precision']}",
        "generator_parameters": start["generator_parameters"],
        "discriminator_parameters": start["discriminator_parameters"],
        "weights_sha256": file_sha256(path / RELEASE_FOLDER / WEIGHTS_FILE),
        "samples": inline_png((path / last_grid).read_bytes(), "samples at the end of training"),
        "curves": inline_png(draw_curves(progress), "losses and probabilities over kimg"),
        "grids": dg.MetadataValue.path(path / GRID_FOLDER),
        "folder": dg.MetadataValue.path(path),
        **links,
    }


def draw_curves(progress: list[dict[str, Any]]) -> bytes:
    """Losses, and the discriminator's mean probabilities of "real", over kimg, as PNG."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    kimg = [row["kimg"] for row in progress]
    for axes, names in (
        (left, ("generator_loss", "discriminator_loss")),
        (right, ("real_probability", "fake_probability")),
    ):
        for name in names:
            axes.plot(kimg, [row[name] for row in progress], label=name.replace("_", " "))
        axes.set_xlabel("kimg")
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


GENERATOR = Stage(
    name="generator",
    work=_work,
    description="The generator, trained against a discriminator in a process of its own, with "
    "journal, sample grids and checkpoints. An interrupted training continues.",
    upstream=("training_images",),
    kinds=frozenset({"python", "pytorch", "mlflow"}),
    pool="gpu",
)
