"""Real images in the eyes of one feature network, and what generated ones score against them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from gan_core.data.image_set import ImageSet
from gan_core.evaluation.card import MetricCard
from gan_core.evaluation.classes import (
    class_shares,
    coverage_estimate,
    divergence_estimate,
    inception_score,
)
from gan_core.evaluation.estimate import Estimate
from gan_core.evaluation.feature_network import FeatureNetwork, Features
from gan_core.evaluation.frechet import distance_estimate
from gan_core.evaluation.kernel import kernel_distance
from gan_core.evaluation.manifold import NEIGHBOURS, Manifold, compare, fit_manifold
from gan_core.evaluation.report import SpaceScores


@dataclass(frozen=True)
class RealSpace:
    """The held-out images in one feature space, and the floor.

    Attributes:
        held_out: Their features.
        manifold: Their balls; None if there are too few, or if they are not looked at.
        class_shares: Share of them in each class as the network sees them; empty without classes.
        floor: What training images score.
    """

    held_out: Features
    manifold: Manifold | None
    class_shares: np.ndarray
    floor: dict[str, Estimate]

    @classmethod
    def measure(
        cls, network: FeatureNetwork, images: ImageSet, training: Features, *, manifold: bool
    ) -> "RealSpace":
        """See the real images.

        Args:
            network: In whose eyes.
            images: The prepared set.
            training: Features of the training images that stand for samples.
            manifold: Whether precision, recall, density and coverage are measured here.
        """
        held_out = network(images.held_out.images)
        shares = np.empty(0)
        if network.config.classes:
            shares = class_shares(held_out.classes, network.config.classes)
        balls = _manifold(held_out) if manifold else None
        without_floor = cls(held_out, balls, shares, {})
        return cls(held_out, balls, shares, without_floor.metrics(training))

    def metrics(self, features: Features) -> dict[str, Estimate]:
        """Every metric of a set of images against the held-out ones."""
        real, seen = self.held_out.vectors, features.vectors
        found = {
            "frechet_distance": distance_estimate(seen, real),
            "kid": kernel_distance(seen, real),
        }
        if self.manifold is not None and (manifold := _manifold(features)) is not None:
            found |= compare(self.manifold, manifold).estimates()
        if features.logits.shape[1]:
            found["inception_score"] = inception_score(features.logits)
        if len(self.class_shares):
            found["class_coverage"] = coverage_estimate(features.classes, self.class_shares)
            found["class_kl"] = divergence_estimate(features.classes, self._smoothed_shares)
        return found

    @property
    def _smoothed_shares(self) -> np.ndarray:
        """Class shares with half an image more in each class, so that none is infinitely rare."""
        counts = self.class_shares * len(self.held_out) + 0.5
        smoothed: np.ndarray = counts / counts.sum()
        return smoothed

    def score(self, features: Features, card: MetricCard) -> SpaceScores:
        """What generated images score here."""
        return SpaceScores(card=card, metrics=self.metrics(features), floor=self.floor)

    def tensors(self) -> dict[str, np.ndarray]:
        """What `from_tensors` needs, beside the floor."""
        found = {
            "vectors": self.held_out.vectors,
            "logits": self.held_out.logits,
            "class_shares": self.class_shares,
        }
        if self.manifold is not None:
            found["points"] = self.manifold.points.numpy()
            found["radii"] = self.manifold.radii.numpy()
        return found

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, np.ndarray],
        floor: dict[str, Estimate],
    ) -> "RealSpace":
        """Put together what was kept."""
        manifold = None
        if "radii" in tensors:
            points, radii = (torch.from_numpy(tensors[name]) for name in ("points", "radii"))
            manifold = Manifold(points, radii)
        held_out = Features(tensors["vectors"], tensors["logits"])
        shares = tensors["class_shares"]
        return cls(held_out, manifold, shares, floor)


def _manifold(features: Features) -> Manifold | None:
    return fit_manifold(features.vectors) if len(features) > NEIGHBOURS else None
