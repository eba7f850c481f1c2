"""`generator`: the adversarial training, in a process of its own, followed through its journal."""

from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg

from gan_core.config import PipelineSettings
from gan_core.errors import FoundryError
from gan_core.evaluation.curves import Panel, draw_panels, series
from gan_core.training.job import (
    GRID_FOLDER,
    JOB_FILE,
    JOURNAL_FILE,
    RELEASE_FOLDER,
    SHARING,
)
from gan_core.training.journal import read_journal
from pipelines.assets.stage import Stage, StageContext, StageResult, inline_png
from pipelines.assets.tracked_training import LOSSES, JournalFollower, tracked_run_if_reachable
from pipelines.devices import POOL
from pipelines.launch import (
    JobInputs,
    TrainingCrashedError,
    continue_smaller_budget,
    new_job,
    run_job,
    write_job,
)
from pipelines.start_weights import Origin, fetch_start
from pipelines.store import open_stage
from pipelines.tracking import TrackedRun

CURVES_FILE = "curves.png"


def _work(stage: StageContext) -> StageResult:
    from gan_core.data.image_set import open_image_set
    from gan_core.evaluation.network_config import saved_weights_sha256

    image_folder = stage.upstream("training_images")
    images = open_image_set(image_folder)
    network_folder = stage.upstream("feature_network")
    settings = stage.settings
    # How the work is shared does not change what is trained.
    training = settings.training.model_dump(mode="json", exclude=set(SHARING))
    path = stage.path(images.sha256, network_folder.name, settings.network, training)
    with open_stage(path, resumable=True) as folder:
        if folder.working:
            _require_second_network(settings)
            inputs: JobInputs = {
                "image_set": image_folder,
                "image_set_sha256": images.sha256,
                "feature_network": network_folder,
                "feature_network_sha256": saved_weights_sha256(network_folder),
            }
            begins = not (folder.working / JOB_FILE).exists()
            continued = None
            if begins and settings.training.start_from == "champion":
                # A larger budget begins with the champion of that time, whichever is it now.
                job = new_job(stage.pipeline, settings, **inputs)
                continued = continue_smaller_budget(job, folder.working)
            if continued is None:
                origin = fetch_start(
                    stage.pipeline,
                    settings.training.start_from,
                    settings.network,
                    images,
                    folder.working,
                )
                inputs["start_sha256"] = origin.sha256 if origin else None
                job = write_job(folder.working, stage.pipeline, settings, **inputs)
                continued = continue_smaller_budget(job, folder.working)
            if continued:
                job, shorter = continued
                stage.dagster.log.info(
                    f"continuing the training of {shorter.training.kimg:g} kimg up to "
                    f"{job.training.kimg:g} kimg, in {job.precision} on {job.threads} threads"
                )
            if settings.training.start_from != "scratch":
                origin = Origin.read(folder.working)
                stage.dagster.log.info(describe_start(stage.pipeline, origin))
            follower = JournalFollower(stage, path.name, folder.working)
            with stage.devices(job.device, job.training.processes):
                try:
                    run_job(folder.working, follower)
                except (FoundryError, TrainingCrashedError):
                    follower.fail()
                    raise
                except dg.DagsterExecutionInterruptedError:
                    follower.interrupt()
                    raise
            curves = draw_curves(_rows(folder.working))
            (folder.working / CURVES_FILE).write_bytes(curves)
    run = tracked_run_if_reachable(stage, path)
    return StageResult(path.name, folder.reused, _metadata(stage.pipeline, path, run))


def _require_second_network(settings: PipelineSettings) -> None:
    """Look for the weights that the evaluation will need; afterwards would be late to find none."""
    network = settings.feature_network
    if settings.evaluation.second_network == "inception" and network.kind != "inception":
        from gan_core.evaluation.inception_weights import find_weights

        find_weights(network.weights, network.weights_sha256)


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_journal(folder / JOURNAL_FILE)]


def describe_start(pipeline: str, origin: Origin | None) -> str:
    """What a training began with, for people."""
    if origin is None:
        return "scratch"
    opponent = "and its discriminator" if origin.with_discriminator else "and a new discriminator"
    return f"{pipeline} version {origin.version} {opponent}"


def _metadata(pipeline: str, path: Path, run: TrackedRun | None) -> dict[str, Any]:
    from gan_core.data.hashing import file_sha256
    from gan_core.released_files import WEIGHTS_FILE

    rows = _rows(path)
    curves = path / CURVES_FILE
    start = next(row for row in rows if row["event"] == "start")
    end = [row for row in rows if row["event"] == "end"][-1]
    progress = [row for row in rows if row["event"] == "progress"]
    evaluations = [row for row in rows if row["event"] == "evaluation"]
    alarms = [row for row in rows if row["event"] == "alarm"]
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
        "started_from": describe_start(pipeline, Origin.read(path)),
        "kimg": end["kimg"],
        "training_seconds": end["seconds"],
        "ended_by": end["reason"],
        "released_kimg": end["released_kimg"],
        **released_distance(evaluations, end["released_kimg"]),
        "alarms": len(alarms),
        **({"last_alarm": alarms[-1]["message"]} if alarms else {}),
        **describe_progress(progress),
        "device": f"{start['device']}, {start['threads']} threads, {start['precision']}",
        "generator_parameters": start["generator_parameters"],
        "discriminator_parameters": start["discriminator_parameters"],
        "generator_flops": start["generator_flops"],
        "discriminator_flops": start["discriminator_flops"],
        "weights_sha256": file_sha256(path / RELEASE_FOLDER / WEIGHTS_FILE),
        "samples": inline_png((path / last_grid).read_bytes(), "samples of what is released"),
        "curves": inline_png(
            # Trainings of before this file was kept have none.
            curves.read_bytes() if curves.exists() else draw_curves(rows),
            "losses, probabilities and distance over kimg",
        ),
        "grids": dg.MetadataValue.path(path / GRID_FOLDER),
        "folder": dg.MetadataValue.path(path),
        **links,
    }


def released_distance(evaluations: list[dict[str, Any]], released_kimg: float) -> dict[str, float]:
    """The distance of what is released, where that was measured."""
    found = [row["distance"] for row in evaluations if row["kimg"] == released_kimg]
    return {"distance_to_training_images": found[-1]} if found else {}


def describe_progress(progress: list[dict[str, Any]]) -> dict[str, float]:
    """The speed of a training, and each loss from the last line that has it."""
    if not progress:
        return {}
    losses = {name: row[name] for row in progress for name in LOSSES if name in row}
    return {"images_per_second": median(row["images_per_second"] for row in progress), **losses}


def draw_curves(journal: list[dict[str, Any]]) -> bytes:
    """Losses, mean probabilities of "real", and distances, over kimg, as PNG."""
    progress = [row for row in journal if row["event"] == "progress"]
    evaluations = [row for row in journal if row["event"] == "evaluation"]
    shown: list[tuple[list[dict[str, Any]], tuple[str, ...]]] = [
        (progress, LOSSES),
        (progress, ("real_probability", "fake_probability")),
    ]
    if evaluations:
        shown.append((evaluations, ("distance",)))
    panels = [
        Panel(
            {name.replace("_", " "): series(rows, name) for name in names},
            logarithmic=rows is evaluations,
        )
        for rows, names in shown
    ]
    return draw_panels(panels, "png")


GENERATOR = Stage(
    name="generator",
    work=_work,
    description="The generator, trained against a discriminator in a process of its own, with "
    "journal, sample grids and checkpoints. An interrupted training continues.",
    upstream=("training_images", "feature_network"),
    kinds=frozenset({"python", "pytorch", "mlflow"}),
    pool=POOL,
    version="9",
    resumes=True,
)
