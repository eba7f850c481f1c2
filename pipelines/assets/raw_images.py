"""`raw_images`: the images as their source has them, verified, counted and listed."""

import dagster as dg

from pipelines.assets.stage import Stage, StageContext, StageResult, inline_png
from pipelines.new_data import state_of_files
from pipelines.store import open_stage

LISTING_SETTINGS = {"source", "archive", "sha256", "path", "held_out_fraction", "split_seed"}


def _work(stage: StageContext) -> StageResult:
    from gan_core.data.manifest import PREVIEW_FILE, list_images, open_raw_images

    data = stage.settings.data
    path = stage.path(data.model_dump(mode="json", include=LISTING_SETTINGS), state_of_files(data))
    with open_stage(path) as folder:
        if folder.working:
            list_images(data, folder.working)
    raw, _ = open_raw_images(path)
    for item in raw.set_aside:
        stage.dagster.log.warning(f"set aside {item['name']}: {item['problem']}")
    counts = raw.counts()
    columns = [
        dg.TableColumn(str(name), kind) for name, kind in raw.manifest.dtypes.astype(str).items()
    ]
    return StageResult(
        path.name,
        folder.reused,
        {
            "images": len(raw.manifest),
            "training_images": counts["train"],
            "held_out_images": counts["held_out"],
            "set_aside": len(raw.set_aside),
            "classes": len(raw.class_names),
            "bytes": int(raw.manifest["bytes"].sum()),
            "sha256": raw.sha256,
            "licence": raw.licence,
            "source": data.source,
            "preview": inline_png((path / PREVIEW_FILE).read_bytes(), "some of the images"),
            "manifest": dg.MetadataValue.path(path / "manifest.parquet"),
            "dagster/column_schema": dg.TableSchema(columns=columns),
        },
    )


RAW_IMAGES = Stage(
    name="raw_images",
    work=_work,
    description="The images as their source has them: downloaded or found, verified, counted, and "
    "listed in a manifest with label, split, size and hash.",
    kinds=frozenset({"python", "pandas", "parquet"}),
    version="2",
)
