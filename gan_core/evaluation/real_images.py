"""Everything about the real images that an evaluation needs: measured once, kept by hash.

It depends on the image set, the networks, the sample count and the seed; not on any generator.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from gan_core.config import fingerprint
from gan_core.data.image_set import ImageSet
from gan_core.errors import FoundryError
from gan_core.evaluation.card import MetricCard, describe_network, library_versions
from gan_core.evaluation.estimate import Estimate
from gan_core.evaluation.feature_network import (
    FeatureNetwork,
    make_feature_network,
    random_network,
)
from gan_core.evaluation.frechet import count_curve
from gan_core.evaluation.manifold import NEIGHBOURS
from gan_core.evaluation.pixels import contrast, nearest_images, pairwise_distance, pooled
from gan_core.evaluation.space import RealSpace
from gan_core.evaluation_settings import EvaluationSettings, FeatureNetworkSettings

TENSORS_FILE = "real_images.safetensors"
FLOOR_FILE = "floor.json"
SPACES = ("gate", "second")
VERSION = 7  # raised when the same images would give other numbers

RANDOM_FEATURE_DIM = 64
NEAREST_COUNT = 500  # images whose nearest training image is looked for
SEED = 0


@dataclass(frozen=True)
class Networks:
    """The two networks of an evaluation.

    Attributes:
        gate: In whose space the decision is made.
        second: Blind to the classes; its numbers stand beside.
    """

    gate: FeatureNetwork
    second: FeatureNetwork

    @classmethod
    def choose(
        cls,
        gate: FeatureNetwork,
        images: ImageSet,
        settings: EvaluationSettings,
        network_settings: FeatureNetworkSettings,
    ) -> "Networks":
        """The gate's network with the second one that the settings ask for.

        Raises:
            FoundryError: The weights of the Inception network cannot be had.
        """
        device = str(gate.device)
        if settings.second_network == "inception" and gate.config.kind != "inception":
            wanted = network_settings.model_copy(update={"kind": "inception"})
            return cls(gate, make_feature_network(images, wanted, device))
        # Another one than the gate's, where that is a random network too.
        seed = (gate.config.seed or 0) + 1 if gate.config.kind == "random" else 0
        return cls(gate, random_network(images.shape, RANDOM_FEATURE_DIM, seed, device))

    def __iter__(self) -> Iterator[FeatureNetwork]:
        return iter((self.gate, self.second))


@dataclass(frozen=True)
class RealImages:
    """The real images as the evaluation needs them.

    Attributes:
        gate: In the space of the gate's network.
        second: In the other.
        floor_extrapolated: The floor's distance in the first, without the bias of the count.
        pooled_training: The training images as `pixels.nearest_images` searches them.
        nearest_distances: Of held-out images to the nearest training image, shape (n,).
        pairwise_distance: Mean pixel distance between held-out images.
        class_distances: The same between those of each class, shape (classes,).
        contrast: Standard deviation of the held-out pixels.
    """

    gate: RealSpace
    second: RealSpace
    floor_extrapolated: float
    pooled_training: np.ndarray
    nearest_distances: np.ndarray
    pairwise_distance: float
    class_distances: np.ndarray
    contrast: float

    @classmethod
    def measure(
        cls, images: ImageSet, networks: Networks, settings: EvaluationSettings
    ) -> "RealImages":
        """See the real images.

        Raises:
            FoundryError: There are fewer than 2 images to train on or held out.
        """
        if min(len(images.train), len(images.held_out)) < 2:
            raise FoundryError(
                f"there are {len(images.train)} training and {len(images.held_out)} held-out "
                "images, but a distance needs 2 of each; add images."
            )
        rows = floor_rows(images, settings)
        held_out = images.held_out
        some = np.sort(np.random.default_rng(SEED).permutation(len(held_out))[:NEAREST_COUNT])
        training = images.train.images
        pooled_training = pooled(training)
        nearest = nearest_images(held_out.images[some], training, pooled_training)
        parts = np.array_split(rows, max(1, len(rows) // 1000))
        shown, seen = (network.over(training[part] for part in parts) for network in networks)
        gate = RealSpace.measure(networks.gate, images, shown, manifold=True)
        return cls(
            gate=gate,
            floor_extrapolated=count_curve(shown.vectors, gate.held_out.vectors).extrapolated,
            second=RealSpace.measure(networks.second, images, seen, manifold=False),
            pooled_training=pooled_training,
            nearest_distances=nearest.distances,
            pairwise_distance=pairwise_distance(held_out.images, None),
            class_distances=np.array(
                [
                    pairwise_distance(held_out.images[held_out.labels == label], None)
                    for label in range(images.classes)
                ]
            ),
            contrast=contrast(held_out.images),
        )

    def save(self, folder: Path) -> None:
        """Write all of it."""
        tensors = {
            "pooled_training": self.pooled_training,
            "nearest_distances": self.nearest_distances,
            "pairwise_distance": np.array(self.pairwise_distance),
            "class_distances": self.class_distances,
            "contrast": np.array(self.contrast),
            "floor_extrapolated": np.array(self.floor_extrapolated),
        }
        floors = {}
        for name in SPACES:
            space: RealSpace = getattr(self, name)
            tensors |= {f"{name}/{key}": value for key, value in space.tensors().items()}
            metrics = {key: metric.model_dump() for key, metric in space.floor.items()}
            floors[name] = metrics
        contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        (folder / TENSORS_FILE).write_bytes(safetensors.numpy.save(contiguous))
        (folder / FLOOR_FILE).write_text(json.dumps(floors, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "RealImages":
        """Read what `save` wrote."""
        tensors = safetensors.numpy.load((folder / TENSORS_FILE).read_bytes())
        floors = json.loads((folder / FLOOR_FILE).read_text(encoding="utf-8"))
        spaces = {
            name: RealSpace.from_tensors(
                {
                    key.removeprefix(f"{name}/"): value
                    for key, value in tensors.items()
                    if key.startswith(f"{name}/")
                },
                {key: Estimate(**metric) for key, metric in floors[name].items()},
            )
            for name in SPACES
        }
        return cls(
            **spaces,
            pooled_training=tensors["pooled_training"],
            nearest_distances=tensors["nearest_distances"],
            pairwise_distance=tensors["pairwise_distance"].item(),
            class_distances=tensors["class_distances"],
            contrast=tensors["contrast"].item(),
            floor_extrapolated=tensors["floor_extrapolated"].item(),
        )


def real_images_key(images: ImageSet, networks: Networks, settings: EvaluationSettings) -> str:
    """Names what `RealImages.measure` would find."""
    hashes = [network.sha256 for network in networks]
    chosen = [settings.samples, settings.seed]
    return fingerprint([VERSION, images.sha256, *hashes, *chosen, library_versions()])


def floor_rows(images: ImageSet, settings: EvaluationSettings) -> np.ndarray:
    """The training images that stand for samples, as rows, int64, shape (n,).

    Conditional samples get their labels, so that both sets have the same classes in the same
    numbers.
    """
    count = min(settings.samples, len(images.train))
    return np.sort(np.random.default_rng(settings.seed).permutation(len(images.train))[:count])


def make_card(
    network: FeatureNetwork, images: ImageSet, settings: EvaluationSettings, samples: int
) -> MetricCard:
    """The card of numbers in a network's space.

    Args:
        network: In whose space.
        images: The real ones.
        settings: Seed.
        samples: Images judged.
    """
    return MetricCard(
        **describe_network(network),
        samples=samples,
        reference=f"{images.description['source']} held_out",
        reference_images=len(images.held_out),
        reference_sha256=images.sha256,
        resolution="x".join(str(side) for side in images.shape),
        preparation=f"{images.description['fit']}, {images.description['resampling']}",
        seed=settings.seed,
        neighbours=NEIGHBOURS,
        libraries=library_versions(),
    )
