"""Precision, recall, density and coverage: two sets of features as unions of balls.

Each set's manifold is the balls around its members that reach to the k-th neighbour. One pass over
the distances serves all four and leaves a verdict for each image, from which the intervals come.
"""

from dataclasses import dataclass

import numpy as np
import torch

from gan_core.evaluation.estimate import Estimate, mean_estimate

NEIGHBOURS = 5
MOST_POINTS = 5000
SEED = 0
CHUNK = 500


@dataclass(frozen=True)
class Manifold:
    """A set of features with the radius of each one's ball.

    Attributes:
        points: float32, shape (n, d).
        radii: float32, shape (n,): distance to the k-th other member.
    """

    points: torch.Tensor
    radii: torch.Tensor


@dataclass(frozen=True)
class ManifoldScores:
    """What each image contributes.

    Attributes:
        precise: Whether each generated image lies in a ball of the real ones, shape (m,).
        density: In how many, divided by k, shape (m,).
        recalled: Whether each real image lies in a ball of the generated ones, shape (n,).
        covered: Whether the ball of each real image holds a generated one, shape (n,).
    """

    precise: np.ndarray
    density: np.ndarray
    recalled: np.ndarray
    covered: np.ndarray

    def estimates(self) -> dict[str, Estimate]:
        """Means with their intervals, by name."""
        return {
            "precision": mean_estimate(self.precise),
            "recall": mean_estimate(self.recalled),
            "density": mean_estimate(self.density, most=np.inf),
            "coverage": mean_estimate(self.covered),
        }


def fit_manifold(features: np.ndarray, neighbours: int = NEIGHBOURS) -> Manifold:
    """The balls of a set of features; of a large set, those of `MOST_POINTS` at random.

    Args:
        features: Shape (n, d) with n above `neighbours`.
        neighbours: k.

    Raises:
        ValueError: There are too few features.
    """
    if len(features) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more than {len(features)} feature vectors")
    some = features
    if len(features) > MOST_POINTS:
        rows = np.random.default_rng(SEED).permutation(len(features))[:MOST_POINTS]
        some = features[np.sort(rows)]
    points = torch.from_numpy(np.ascontiguousarray(some, np.float32))
    radii = [
        # The nearest member is the point itself.
        torch.cdist(part, points).topk(neighbours + 1, largest=False).values[:, -1]
        for part in points.split(CHUNK)
    ]
    return Manifold(points, torch.cat(radii))


def compare(real: Manifold, generated: Manifold, neighbours: int = NEIGHBOURS) -> ManifoldScores:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)."""
    count = len(generated.points)
    balls = torch.zeros(count)
    recalled, covered = [], []
    for points, radii in zip(real.points.split(CHUNK), real.radii.split(CHUNK), strict=True):
        distances = torch.cdist(points, generated.points)
        inside = distances < radii[:, None]
        balls += torch.ones(len(inside)) @ inside.float()  # faster than a sum of truths
        covered.append(inside.any(1))
        recalled.append((distances < generated.radii[None]).any(1))
    return ManifoldScores(
        precise=(balls > 0).numpy(),
        density=balls.numpy() / neighbours,
        recalled=torch.cat(recalled).numpy(),
        covered=torch.cat(covered).numpy(),
    )
