"""Measures generated images: in two feature spaces, on their pixels, and against the checks."""

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from gan_core.data.image_set import ImageSet
from gan_core.errors import FoundryError
from gan_core.evaluation.card import MetricCard
from gan_core.evaluation.checks import run_checks
from gan_core.evaluation.estimate import REPLICATES, Estimate, estimate, mean_estimate
from gan_core.evaluation.feature_network import FeatureNetwork
from gan_core.evaluation.frechet import count_curve
from gan_core.evaluation.pixels import (
    constant_share,
    contrast,
    nearest_images,
    pairwise_distance,
    pairwise_distances,
)
from gan_core.evaluation.real_images import (
    NEAREST_COUNT,
    SEED,
    Networks,
    RealImages,
    floor_rows,
    make_card,
)
from gan_core.evaluation.report import ClassRow, CurvePoint, Evaluation, NearestPair
from gan_core.evaluation_settings import EvaluationSettings
from gan_core.generator import ReleasedGenerator

NEAR_QUANTILE = 0.01  # of the held-out images' distances: what is nearer is a near copy
PAIRS_KEPT = 16
RAW_COUNT = 256  # samples whose pixels are looked at before they are rounded
RANGE_TOLERANCE = 1e-3
LEAST = 1e-9  # in the place of zero below a fraction: real images may be all alike


@dataclass(frozen=True)
class Evaluator:
    """Measures images against one pipeline's held-out images.

    Attributes:
        images: The prepared set.
        networks: In whose spaces.
        real: The real images as the networks see them.
        settings: Sample count, seed and bounds.
    """

    images: ImageSet
    networks: Networks
    real: RealImages
    settings: EvaluationSettings

    @property
    def labels(self) -> np.ndarray:
        """The classes that a conditional generator is asked for, int64, shape (n,)."""
        return self.images.train.labels[floor_rows(self.images, self.settings)]

    def evaluate(self, generator: ReleasedGenerator) -> tuple[Evaluation, np.ndarray]:
        """Measure a generator, asked for the labels of the images that stand for the floor.

        Returns:
            The evaluation, and the samples, uint8, shape (n, height, width, channels).

        Raises:
            FoundryError: The generator and the images do not have the same shape.
        """
        samples = self.draw(generator)
        asked = self.labels if generator.config.classes else None
        raw = _raw_outputs(generator, asked, self.settings.seed)
        with _one_blas_thread():
            return self._measure(samples, asked, raw), samples

    def draw(self, generator: ReleasedGenerator) -> np.ndarray:
        """The samples that stand for a generator: the same latents and labels for every one.

        Returns:
            uint8, shape (n, height, width, channels).

        Raises:
            FoundryError: The generator and the images do not have the same shape.
        """
        self._require_shape("generator", generator.config.shape)
        labels = self.labels
        asked = labels if generator.config.classes else None
        return generator.sample(len(labels), seed=self.settings.seed, labels=asked)

    def gate_card(self, samples: int) -> MetricCard:
        """The card of numbers in the space that decides."""
        return self._card(self.networks.gate, samples)

    def evaluate_images(self, samples: np.ndarray, labels: np.ndarray | None = None) -> Evaluation:
        """Measure images, whoever made them.

        Args:
            samples: uint8, shape (n, height, width, channels), n at least 2.
            labels: The class that each shows, int64, shape (n,); None if that is not known.

        Raises:
            FoundryError: The samples do not have the images' shape, or there is only one.
        """
        self._require_shape("samples", samples.shape[1:])
        if len(samples) < 2:
            raise FoundryError(
                f"there is {len(samples)} image, but a distance needs at least 2; add images."
            )
        with _one_blas_thread():
            return self._measure(samples, labels, {})

    def _measure(
        self, samples: np.ndarray, labels: np.ndarray | None, raw: dict[str, Estimate]
    ) -> Evaluation:
        seen = self.networks.gate(samples)
        gate = self.real.gate.score(seen, self.gate_card(len(samples)))
        second = self.real.second.score(
            self.networks.second(samples), self._card(self.networks.second, len(samples))
        )
        curve = count_curve(seen.vectors, self.real.gate.held_out.vectors)
        points = zip(curve.counts, curve.distances, strict=True)
        classes = seen.classes if self.networks.gate.config.classes else None
        shown = labels if labels is not None else classes
        distances, pairs = _memorisation(samples, self.images, self.real)
        of_images = {
            **_diversity(samples, shown, self.real),
            **distances,
            "contrast_ratio": _exactly(contrast(samples) / max(self.real.contrast, LEAST)),
            "constant_share": _exactly(constant_share(samples)),
            **raw,
        }
        if labels is not None and classes is not None:
            of_images["label_agreement"] = mean_estimate(classes == labels)
        measured: dict[str, float | None] = {
            name: found.value for name, found in {**gate.metrics, **of_images}.items()
        }
        for name in ("recall", "precision"):
            measured[f"{name}_ratio"] = gate.over_floor(name)
        return Evaluation(
            gate=gate,
            second=second,
            curve=tuple(CurvePoint(samples=n, frechet_distance=value) for n, value in points),
            extrapolated=curve.extrapolated,
            floor_extrapolated=self.real.floor_extrapolated,
            images=of_images,
            classes=()
            if classes is None
            else _class_rows(classes, labels, samples, self.images.class_names, self.real),
            nearest_pairs=pairs,
            checks=tuple(run_checks(measured, self.settings.checks)),
        )

    def _card(self, network: FeatureNetwork, samples: int) -> MetricCard:
        return make_card(network, self.images, self.settings, samples)

    def _require_shape(self, what: str, shape: tuple[int, ...]) -> None:
        shapes = {
            what: shape,
            "images": self.images.shape,
            "feature network": self.networks.gate.config.shape,
        }
        if len(set(shapes.values())) > 1:
            text = ", ".join(
                f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()
            )
            raise FoundryError(
                f"the shapes differ: {text}; materialize the whole pipeline with one "
                "data.resolution, or bring the images to it."
            )


def _one_blas_thread() -> threadpool_limits:
    """Numpy's products on one thread: its others would spin on, and slow PyTorch's twofold."""
    return threadpool_limits(limits=1, user_api="blas")


def _exactly(value: float) -> Estimate:
    """A number of all the images, which is not an estimate of another."""
    return Estimate(value=value, low=value, high=value)


def _memorisation(
    samples: np.ndarray, images: ImageSet, real: RealImages
) -> tuple[dict[str, Estimate], tuple[NearestPair, ...]]:
    """How near samples lie to training images, beside how near held-out images do."""
    some = np.sort(np.random.default_rng(SEED).permutation(len(samples))[:NEAREST_COUNT])
    nearest = nearest_images(samples[some], images.train.images, real.pooled_training)
    ratios = nearest.distances / max(float(np.median(real.nearest_distances)), LEAST)
    order = np.argsort(nearest.distances, kind="stable")[:PAIRS_KEPT]
    # Not nearer than: where held-out images are copies of training images, the quantile is 0.
    near = nearest.distances <= np.quantile(real.nearest_distances, NEAR_QUANTILE)
    pairs = tuple(
        NearestPair(
            sample=int(some[index]),
            training_image=int(nearest.rows[index]),
            distance=float(nearest.distances[index]),
        )
        for index in order
    )
    return {
        "nearest_distance_ratio": _median_estimate(ratios),
        "near_copy_share": mean_estimate(near),
    }, pairs


def _median_estimate(values: np.ndarray) -> Estimate:
    stream = np.random.default_rng(SEED)
    drawn = values[stream.integers(len(values), size=(REPLICATES, len(values)))]
    return estimate(float(np.median(values)), np.median(drawn, axis=1), least=0.0)


def _diversity(
    samples: np.ndarray, labels: np.ndarray | None, real: RealImages
) -> dict[str, Estimate]:
    """Pixel distances between samples of a class, as shares of those between real images.

    Where nobody knows the classes of the samples, they are those between any two.
    """
    if labels is None or not len(real.class_distances):
        groups = [(samples, real.pairwise_distance)]
    else:
        classes = enumerate(real.class_distances)
        groups = [(samples[labels == label], distance) for label, distance in classes]
    parts = [pairwise_distances(own, None) / usual for own, usual in groups if usual > 0]
    ratios = np.concatenate([np.empty(0), *parts])
    # Real images that are all alike, or one sample of each class, leave nothing to compare.
    return {"intra_class_diversity": mean_estimate(ratios, most=np.inf)} if len(ratios) else {}


def _class_rows(
    classes: np.ndarray,
    labels: np.ndarray | None,
    samples: np.ndarray,
    names: tuple[str, ...],
    real: RealImages,
) -> tuple[ClassRow, ...]:
    shown = labels if labels is not None else classes
    rows = []
    for index, (name, distance) in enumerate(zip(names, real.class_distances, strict=True)):
        own = shown == index
        some = labels is not None and own.any()
        rows.append(
            ClassRow(
                name=name,
                share=float((classes == index).mean()),
                real_share=float(real.gate.class_shares[index]),
                agreement=float((classes[own] == index).mean()) if some else None,
                diversity=pairwise_distance(samples[own], None) / distance
                if distance > 0 and own.sum() > 1
                else None,
            )
        )
    return tuple(rows)


def _raw_outputs(
    generator: ReleasedGenerator, labels: np.ndarray | None, seed: int
) -> dict[str, Estimate]:
    """What rounding to 8 bits hides: numbers that are none, and numbers out of range."""
    count = RAW_COUNT if labels is None else min(RAW_COUNT, len(labels))
    some = None if labels is None else np.random.default_rng(SEED).permutation(labels)[:count]
    non_finite, out_of_range = 0, 0
    for output in generator.output_batches(count, seed=seed, labels=some):
        finite = output.isfinite()
        beyond = (output.abs() > 1 + RANGE_TOLERANCE) & finite
        non_finite += int((~finite).flatten(1).any(1).sum())
        out_of_range += int(beyond.flatten(1).any(1).sum())
    return {
        "non_finite_share": _exactly(non_finite / count),
        "out_of_range_share": _exactly(out_of_range / count),
    }
