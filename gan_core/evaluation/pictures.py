"""What people look at when they judge a generator: grids for the report."""

from collections.abc import Sequence

import numpy as np
import torch

from gan_core.data.image_set import ImageSet
from gan_core.evaluation.report import NearestPair
from gan_core.generator import ReleasedGenerator
from gan_core.image_grid import grid_columns, make_grid
from gan_core.interpolation import spherical

GRID_IMAGES = 60
ROWS = 6
STEPS = 9
TRUNCATIONS = (0.2, 0.4, 0.6, 0.8, 1.0)
SEED = 0


def beside_real(
    samples: np.ndarray, labels: np.ndarray | None, images: ImageSet
) -> tuple[np.ndarray, np.ndarray]:
    """A grid of samples and one of held-out images, of the same classes in the same places.

    Args:
        samples: uint8, shape (n, height, width, channels).
        labels: Their classes, int64, shape (n,); None if they are not known.
        images: The prepared set.

    Returns:
        Two grids, uint8, shape (height, width, channels).
    """
    held_out = images.held_out
    classes = images.classes if labels is not None else 0
    count = min(GRID_IMAGES, len(samples), len(held_out))
    columns = grid_columns(count, classes)
    count -= count % columns
    if labels is None:
        return make_grid(samples[:count], columns), make_grid(held_out.images[:count], columns)
    shown = np.arange(count) % classes
    return (
        make_grid(samples[_rows_of_classes(labels, shown)], columns),
        make_grid(held_out.images[_rows_of_classes(held_out.labels, shown)], columns),
    )


def side_by_side(
    left: np.ndarray, right: np.ndarray, labels: np.ndarray | None, gap_pixels: int = 8
) -> np.ndarray:
    """Two grids of images from the same latents, beside each other.

    Args:
        left: uint8, shape (n, height, width, channels).
        right: The same of the other generator.
        labels: The classes asked for, int64, shape (n,); None without classes.
        gap_pixels: White space between the grids.

    Returns:
        uint8, shape (height, width, channels).
    """
    classes = 0 if labels is None else int(labels.max()) + 1
    count = min(GRID_IMAGES, len(left))
    columns = grid_columns(count, classes)
    rows = list(range(count - count % columns))
    if labels is not None:
        rows = _rows_of_classes(labels, np.arange(len(rows)) % classes)
    grids = [make_grid(images[rows], columns) for images in (left, right)]
    gap = np.full((grids[0].shape[0], gap_pixels, grids[0].shape[2]), 255, np.uint8)
    return np.concatenate([grids[0], gap, grids[1]], axis=1)


def _rows_of_classes(labels: np.ndarray, wanted: np.ndarray) -> list[int]:
    """For each wanted class a row of it, in turn; any row for a class that there is not."""
    rows = {int(label): np.flatnonzero(labels == label) for label in np.unique(wanted)}
    used = dict.fromkeys(rows, 0)
    found = []
    for place, label in enumerate(wanted.tolist()):
        own = rows[label]
        found.append(int(own[used[label] % len(own)]) if len(own) else place % len(labels))
        used[label] += 1
    return found


def interpolation(generator: ReleasedGenerator) -> np.ndarray:
    """Rows that lead from one latent to another along the sphere, a class a row.

    Returns:
        A grid, uint8, shape (height, width, channels).
    """
    begin, end = _latents(generator, ROWS), _latents(generator, ROWS, SEED + 1)
    shares = torch.linspace(0, 1, STEPS)
    latents = torch.cat([spherical(a, b, shares) for a, b in zip(begin, end, strict=True)])
    labels = (torch.arange(ROWS) % max(generator.config.classes, 1)).repeat_interleave(STEPS)
    return make_grid(generator.images(latents, labels), STEPS)


def truncation_sweep(generator: ReleasedGenerator) -> np.ndarray:
    """The same latents with smaller and larger truncation, a row each, from `TRUNCATIONS`."""
    latents = _latents(generator, STEPS)
    labels = torch.arange(STEPS) % max(generator.config.classes, 1)
    rows = [generator.images(latents * share, labels) for share in TRUNCATIONS]
    return make_grid(np.concatenate(rows), STEPS)


def nearest_pairs(
    pairs: Sequence[NearestPair], samples: np.ndarray, training: np.ndarray
) -> np.ndarray | None:
    """Samples in the upper row, their nearest training images below; None without pairs."""
    if not pairs:
        return None
    above = np.stack([samples[pair.sample] for pair in pairs])
    below = np.stack([training[pair.training_image] for pair in pairs])
    return make_grid(np.concatenate([above, below]), len(pairs))


def _latents(generator: ReleasedGenerator, count: int, seed: int = SEED) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator.config.network.latent_dim, generator=stream)
