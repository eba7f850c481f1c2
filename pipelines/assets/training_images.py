"""`training_images`: all images at one size, as one memory-mapped array."""

import dagster as dg

from pipelines.assets.stage import Stage, StageContext, StageResult, inline_grid
from pipelines.store import open_stage

PREPARATION_SETTINGS = {"resolution", "channels", "fit"}


def _work(stage: StageContext) -> StageResult:
    import numpy as np

    from gan_core.data.image_set import IMAGES_FILE, open_image_set
    from gan_core.data.manifest import open_raw_images
    from gan_core.data.preparation import prepare_images
    from gan_core.image_grid import make_grid

    raw_folder = stage.upstream("raw_images")
    data = stage.settings.data
    path = stage.path(
        open_raw_images(raw_folder)[0].sha256,
        data.model_dump(mode="json", include=PREPARATION_SETTINGS),
    )
    with open_stage(path) as folder:
        if folder.working:
            prepare_images(raw_folder, data, folder.working)
    images = open_image_set(path)
    shown = np.linspace(0, len(images.train) - 1, min(80, len(images.train)), dtype=int)
    per_class = images.description["class_counts"]
    return StageResult(
        path.name,
        folder.reused,
        {
            "training_images": len(images.train),
            "held_out_images": len(images.held_out),
            "height": images.shape[0],
            "width": images.shape[1],
            "channels": images.shape[2],
            "classes": dict(zip(images.class_names, per_class, strict=True)),
            "bytes": (path / IMAGES_FILE).stat().st_size,
            "sha256": images.sha256,
            "preparation": f"{images.description['fit']}, {images.description['resampling']}",
            "preview": inline_grid(make_grid(images.train.images[shown], 10), "training images"),
            "folder": dg.MetadataValue.path(path),
        },
    )


TRAINING_IMAGES = Stage(
    name="training_images",
    work=_work,
    description="The images at the pipeline's resolution and channels, as one memory-mapped uint8 "
    "array with labels.",
    upstream=("raw_images",),
    kinds=frozenset({"python", "numpy"}),
    version="2",
)
