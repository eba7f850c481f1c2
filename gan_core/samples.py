"""Export of generated images: PNG files, one grid, and an `.npz` that reproduces them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gan_core.errors import FoundryError
from gan_core.image_grid import display_scale, grid_columns, make_grid, save_png, to_picture

if TYPE_CHECKING:
    from gan_core.generator import ReleasedGenerator

GRID_FILE = "grid.png"
ARCHIVE_FILE = "samples.npz"
IMAGE_FOLDER = "images"
ANIMATION_FILE = "interpolation.gif"
GRID_IMAGES = 100
MOST_STOPS = 100
FRAMES_PER_LEG = 24
FRAMES_PER_SECOND = 12
ANIMATION_PIXELS = 320


def export_samples(
    generator: "ReleasedGenerator", count: int, seed: int, truncation: float, folder: Path
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


def export_animation(
    generator: "ReleasedGenerator", stops: int, seed: int, truncation: float, path: Path
) -> None:
    """Write a walk through `stops` latents, and back to the first, as an endless GIF.

    Raises:
        FoundryError: There are not at least two stops.
    """
    from gan_core.interpolation import walk

    check_stops(stops)
    frames = list(walk(generator, stops, FRAMES_PER_LEG, seed, truncation))
    scale = display_scale(frames[0], ANIMATION_PIXELS)
    first, *others = (to_picture(frame, scale) for frame in frames)
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=round(1000 / FRAMES_PER_SECOND),
        loop=0,
    )


def check_stops(stops: int) -> None:
    """Raise FoundryError for a walk that would stand still, or take for ever."""
    if not 2 <= stops <= MOST_STOPS:
        raise FoundryError(
            f"the interpolation has {stops} stops, but it needs from 2 to {MOST_STOPS}."
        )
