"""Ways from latent to latent, for pictures that move."""

from collections.abc import Iterator

import numpy as np
import torch

from gan_core.generator import ReleasedGenerator
from gan_core.image_grid import make_grid

MOST_TILES = 16


def spherical(begin: torch.Tensor, end: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Points between two vectors, at equal angles (Shoemake 1985).

    Latents of a normal distribution lie near a sphere; a straight line between two would leave it
    (White 2016).

    Args:
        begin: Shape (d,).
        end: Shape (d,).
        shares: From 0 at the beginning to 1 at the end, shape (n,).

    Returns:
        Shape (n, d).
    """
    cosine = torch.dot(begin / begin.norm(), end / end.norm()).clamp(-1.0, 1.0)
    angle = torch.acos(cosine)
    if torch.sin(angle) < 1e-6:  # in one line, where there is no shortest way around
        return torch.lerp(begin, end, shares[:, None])
    weights = torch.stack([torch.sin((1 - shares) * angle), torch.sin(shares * angle)], dim=1)
    return weights / torch.sin(angle) @ torch.stack([begin, end])


def walk(
    generator: ReleasedGenerator, stops: int, steps: int, seed: int, truncation: float
) -> Iterator[np.ndarray]:
    """Frames of a walk through random latents and back to the first.

    A frame shows every class at the same latent where there are at most `MOST_TILES`, else as many
    latents, each on a way of its own.

    Args:
        generator: Who makes the images.
        stops: Latents that each way passes.
        steps: Frames from one to the next.
        seed: Of the latents.
        truncation: They are multiplied by it.

    Yields:
        `stops * steps` grids, uint8, shape (height, width, channels).
    """
    config = generator.config
    by_class = 2 <= config.classes <= MOST_TILES
    tiles = config.classes if by_class else MOST_TILES
    stream = torch.Generator().manual_seed(seed)
    ways = 1 if by_class else tiles
    latents = torch.randn(ways, stops, config.network.latent_dim, generator=stream) * truncation
    labels = torch.arange(tiles) % max(config.classes, 1)
    columns = int(np.ceil(np.sqrt(tiles)))
    shares = torch.arange(steps) / steps
    for stop in range(stops):
        legs = [spherical(way[stop], way[(stop + 1) % stops], shares) for way in latents]
        for points in torch.stack(legs, dim=1):
            yield make_grid(generator.images(points.expand(tiles, -1), labels), columns)
