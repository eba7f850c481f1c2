"""`samples`: images for people to look at and to take away."""

import dagster as dg

from gan_core.training.job import RELEASE_FOLDER
from pipelines.assets.stage import Stage, StageContext, StageResult, inline_png
from pipelines.assets.tracked_training import tracked_run
from pipelines.store import open_stage
from pipelines.tracking import tracking_errors


def _work(stage: StageContext) -> StageResult:
    from gan_core.samples import ARCHIVE_FILE, GRID_FILE, export_samples

    training = stage.upstream("generator")
    settings = stage.settings.samples
    path = stage.path(training.name, settings)
    with open_stage(path) as folder:
        if folder.working:
            from gan_core.generator import ReleasedGenerator

            export_samples(
                ReleasedGenerator.load(training / RELEASE_FOLDER),
                settings.count,
                settings.seed,
                settings.truncation,
                folder.working,
            )
    run = tracked_run(stage, training)
    with tracking_errors():
        run.log_files([path / GRID_FILE, path / ARCHIVE_FILE], "samples")
    return StageResult(
        path.name,
        folder.reused,
        {
            "count": settings.count,
            "seed": settings.seed,
            "truncation": settings.truncation,
            "grid": inline_png((path / GRID_FILE).read_bytes(), "generated images"),
            "grid_file": dg.MetadataValue.path(path / GRID_FILE),
            "archive": dg.MetadataValue.path(path / ARCHIVE_FILE),
            "mlflow_run": dg.MetadataValue.url(run.url),
            "folder": dg.MetadataValue.path(path),
        },
    )


SAMPLES = Stage(
    name="samples",
    work=_work,
    description="Generated images as PNG files, one grid, and an archive with the latents, labels "
    "and seed that made them.",
    upstream=("generator", "evaluation"),
    kinds=frozenset({"python", "pytorch", "mlflow"}),
)
