"""The evaluation of a generator: its distance, the floor beside it, class coverage, and the card.

A number without its card means nothing: the card names everything that the number depends on.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from gan_core.config import EvaluationSettings
from gan_core.data.image_set import ImageSet
from gan_core.errors import FoundryError
from gan_core.evaluation.feature_network import FeatureNetwork, describe_network
from gan_core.evaluation.frechet import fit_gaussian, frechet_distance
from gan_core.generator import ReleasedGenerator

EVALUATION_FILE = "evaluation.json"

# A class counts as covered when the samples show it at least a tenth as often as real images do.
COVERED_SHARE = 0.1


class MetricCard(BaseModel):
    """What a distance depends on. Two distances compare only if their cards are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = "Fréchet distance"
    feature_network: str
    feature_network_sha256: str
    feature_dim: int
    feature_network_held_out_accuracy: float | None
    samples: int
    reference: str
    reference_images: int
    reference_sha256: str
    resolution: str
    preparation: str
    seed: int
    torch: str

    @property
    def line(self) -> str:
        """The card in one line, to be printed beside the number."""
        accuracy = self.feature_network_held_out_accuracy
        skill = "" if accuracy is None else f", accuracy {accuracy:.1%}"
        return (
            f"{self.metric} in {self.feature_network} {self.feature_network_sha256[:8]} "
            f"(d = {self.feature_dim}{skill}), {self.samples} samples against "
            f"{self.reference_images} images of {self.reference} {self.reference_sha256[:8]}, "
            f"{self.resolution} ({self.preparation}), seed {self.seed}; the floor takes as many "
            "training images in the place of the samples"
        )


class Evaluation(BaseModel):
    """The measured quality of one generator.

    Attributes:
        frechet_distance: Between generated and held-out images.
        floor: The same with real training images in the place of the generated ones.
        class_coverage: Share of the classes that the samples show; None without classes.
        class_shares: Share of the samples in each class; empty without classes.
        label_agreement: Share of samples that the classifier puts into the class they were asked
            for; None for an unconditional generator.
        card: What the distance and the floor depend on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frechet_distance: float
    floor: float
    class_coverage: float | None
    class_shares: dict[str, float]
    label_agreement: float | None
    card: MetricCard

    def write(self, folder: Path) -> None:
        """Put the evaluation into a folder."""
        (folder / EVALUATION_FILE).write_text(self.model_dump_json(indent=2))

    @classmethod
    def read(cls, folder: Path) -> "Evaluation":
        """The evaluation in a folder."""
        return cls.model_validate_json((folder / EVALUATION_FILE).read_text())


def evaluate(
    generator: ReleasedGenerator,
    images: ImageSet,
    network: FeatureNetwork,
    settings: EvaluationSettings,
) -> Evaluation:
    """Measure a generator against the held-out images.

    Generated images get the labels of the real training images that stand for the floor, so that
    both sets have the same classes in the same numbers.

    Raises:
        FoundryError: The generator, the network and the images do not have the same shape, or
            there are fewer than 2 images to train on or held out.
    """
    _check_shapes(generator, images, network)
    if min(len(images.train), len(images.held_out)) < 2:
        raise FoundryError(
            f"there are {len(images.train)} training and {len(images.held_out)} held-out images, "
            "but a distance needs 2 of each; add images."
        )
    count = min(settings.samples, len(images.train))
    stream = np.random.default_rng(settings.seed)
    rows = np.sort(stream.permutation(len(images.train))[:count])
    labels = images.train.labels[rows]

    reference_features, reference_classes = network(images.held_out.images)
    reference = fit_gaussian(reference_features)
    real_features, _ = network.over(
        images.train.images[part] for part in np.array_split(rows, max(1, count // 1000))
    )
    batches = generator.sample_batches(
        count, seed=settings.seed, labels=labels if generator.config.classes else None
    )
    features, classes = network.over(batch.images for batch in batches)

    is_classifier = network.config.classes > 0
    shares: dict[str, float] = {}
    coverage = None
    if is_classifier:
        shares, coverage = class_coverage(classes, reference_classes, images.class_names)
    card = MetricCard(
        **describe_network(network.config, network.sha256),
        samples=count,
        reference=f"{images.description['source']} held_out",
        reference_images=len(images.held_out),
        reference_sha256=images.sha256,
        resolution="x".join(str(side) for side in images.shape),
        preparation=f"{images.description['fit']}, {images.description['resampling']}",
        seed=settings.seed,
        torch=torch.__version__,
    )
    agreement = float((classes == labels).mean()) if generator.config.classes else None
    return Evaluation(
        frechet_distance=frechet_distance(fit_gaussian(features), reference),
        floor=frechet_distance(fit_gaussian(real_features), reference),
        class_coverage=coverage,
        class_shares=shares,
        label_agreement=agreement if is_classifier else None,
        card=card,
    )


def class_coverage(
    classes: np.ndarray, reference_classes: np.ndarray, names: tuple[str, ...]
) -> tuple[dict[str, float], float]:
    """How many of the real classes a set of samples shows.

    Args:
        classes: Class of each sample, int64, shape (n,).
        reference_classes: Class of each real image, int64, shape (m,).
        names: By class.

    Returns:
        The share of the samples in each class, and the share of the classes covered, 0 to 1.
    """
    shares = np.bincount(classes, minlength=len(names)) / len(classes)
    real_shares = np.bincount(reference_classes, minlength=len(names)) / len(reference_classes)
    covered = covered_share(classes, real_shares)
    return dict(zip(names, shares.tolist(), strict=True)), covered


def covered_share(classes: np.ndarray, real_shares: np.ndarray) -> float:
    """Share of the real classes that a set of samples shows.

    Args:
        classes: Class of each sample, int64, shape (n,).
        real_shares: Share of the real images in each class, shape (classes,).
    """
    shares = np.bincount(classes, minlength=len(real_shares)) / len(classes)
    present = real_shares > 0
    return float((shares >= COVERED_SHARE * real_shares)[present].mean())


def _check_shapes(generator: ReleasedGenerator, images: ImageSet, network: FeatureNetwork) -> None:
    shapes: dict[str, Any] = {
        "generator": generator.config.shape,
        "images": images.shape,
        "feature network": network.config.shape,
    }
    if len(set(shapes.values())) > 1:
        text = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        raise FoundryError(
            f"the shapes differ: {text}; materialize the whole pipeline with one data.resolution."
        )
