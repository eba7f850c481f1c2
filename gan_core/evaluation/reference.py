"""The training images as a feature network sees them: what a training is measured against.

Held-out images judge the finished generator; while it trains, nothing is chosen by them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.numpy

from gan_core.data.image_set import ImageSplit
from gan_core.evaluation.classes import class_shares
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.evaluation.frechet import Gaussian, fit_gaussian

REFERENCE_FILE = "training_reference.safetensors"
MOST_IMAGES = 10_000
SEED = 0


@dataclass(frozen=True)
class Reference:
    """Statistics of real images.

    Attributes:
        gaussian: Of their features.
        class_shares: Share of the images in each class as the network sees them, shape (classes,);
            empty where the network tells no classes apart.
    """

    gaussian: Gaussian
    class_shares: np.ndarray

    @classmethod
    def measure(cls, network: FeatureNetwork, split: ImageSplit) -> Self:
        """Take the statistics of at most `MOST_IMAGES` images, drawn at random."""
        rows = np.sort(np.random.default_rng(SEED).permutation(len(split))[:MOST_IMAGES])
        parts = np.array_split(rows, max(1, len(rows) // 1000))
        features = network.over(split.images[part] for part in parts)
        classes = network.config.classes
        shares = class_shares(features.classes, classes) if classes else np.empty(0)
        return cls(fit_gaussian(features.vectors), shares)

    def save(self, folder: Path) -> None:
        """Write the statistics."""
        tensors = {
            "mean": self.gaussian.mean,
            "covariance": self.gaussian.covariance,
            "class_shares": self.class_shares,
        }
        (folder / REFERENCE_FILE).write_bytes(safetensors.numpy.save(tensors))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        tensors = safetensors.numpy.load((folder / REFERENCE_FILE).read_bytes())
        return cls(Gaussian(tensors["mean"], tensors["covariance"]), tensors["class_shares"])
