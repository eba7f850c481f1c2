"""Export of generated images: PNG files, one grid, and an `.npz` that reproduces them."""

from pathlib import Path

import numpy as np

from gan_core.generator import ReleasedGenerator
from gan_core.image_grid import display_scale, grid_columns, make_grid, save_png

GRID_FILE = "grid.png"
ARCHIVE_FILE = "samples.npz"
IMAGE_FOLDER = "images"
GRID_IMAGES = 100


def export_samples(
    generator: ReleasedGenerator, count: int, seed: int, truncation: float, folder: Path
) -> np.ndarray:
    """Write `count` images as PNG, a grid of up to a hundred, and an archive with their latents.

    Classes come in turn, so that each is shown.

    Returns:
        The grid, uint8, shape (height, width, channels).
    """
    classes = generator.config.classes
    labels = np.arange(count) % classes if classes else None
    batches = list(generator.sample_batches(count, seed=seed, labels=labels, truncation=truncation))
    images = np.concatenate([batch.images for batch in batches])
    (folder / IMAGE_FOLDER).mkdir(exist_ok=True)
    for index, image in enumerate(images):
        save_png(image, folder / IMAGE_FOLDER / f"{index:05d}.png")
    np.savez(
        folder / ARCHIVE_FILE,
        images=images,
        latents=np.concatenate([batch.latents for batch in batches]),
        labels=np.concatenate([batch.labels for batch in batches]),
        seed=np.int64(seed),
        truncation=np.float64(truncation),
    )
    shown = min(count, GRID_IMAGES)
    columns = grid_columns(shown, classes)
    grid = make_grid(images[: shown // columns * columns], columns)  # whole rows
    save_png(grid, folder / GRID_FILE, display_scale(grid))
    return grid
