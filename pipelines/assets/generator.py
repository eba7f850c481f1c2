"""`generator`: the adversarial training, in a process of its own, followed through its journal."""

from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg

from gan_core.errors import FoundryError
from gan_core.training.job import (
    GRID_FOLDER,
    JOURNAL_FILE,
    RELEASE_FOLDER,
)
from gan_core.training.journal import read_journal
from pipelines.assets.stage import Stage, StageContext, StageResult, inline_png
from pipelines.assets.tracked_training import JournalFollower, tracked_run_if_reachable
from pipelines.launch import TrainingCrashedError, run_job, write_job
from pipelines.store import open_stage
from pipelines.tracking import TrackedRun


def _work(stage: StageContext) -> StageResult:
    from gan_core.data.image_set import open_image_set

    image_folder = stage.upstream("training_images")
    images = open_image_set(image_folder)
    settings = stage.settings
    path = stage.path(images.sha256, settings.network, settings.training)
    with open_stage(path, resumable=True) as folder:
        if folder.working:
            write_job(stage.pipeline, settings, image_folder, images.sha256, folder.working)
            follower = JournalFollower(stage, path.name, folder.working)
            with stage.device():
                try:
                    run_job(folder.working, follower)
                except (FoundryError, TrainingCrashedError):
                    follower.fail()
                    raise
    run = tracked_run_if_reachable(stage, path)
    rows = [row for _, row in read_journal(path / JOURNAL_FILE)]
    return StageResult(path.name, folder.reused, _metadata(path, rows, run))


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
