"""Two generators in one evaluation."""

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
import torch

from gan_core.data.image_set import ImageSet
from gan_core.evaluation.card import require_same_cards
from gan_core.evaluation.comparison import Comparison, compare_generators
from gan_core.evaluation.evaluator import Evaluator
from gan_core.evaluation.feature_network import make_feature_network
from gan_core.evaluation.pictures import side_by_side
from gan_core.evaluation.real_images import Networks, RealImages
from gan_core.evaluation_settings import EvaluationSettings, FeatureNetworkSettings
from gan_core.generator import ReleasedGenerator
from tests.gan_core.test_evaluator import Showing

MakeGenerator = Callable[..., ReleasedGenerator]


@pytest.fixture(scope="module")
def evaluator(digit_images: ImageSet) -> Evaluator:
    """Sees with a random network, which is enough here and needs no training."""
    settings = EvaluationSettings(samples=700)
    chosen = FeatureNetworkSettings(kind="random")
    networks = Networks.choose(
        make_feature_network(digit_images, chosen), digit_images, settings, chosen
    )
    real = RealImages.measure(digit_images, networks, settings)
    return Evaluator(digit_images, networks, real, settings)


def noisy_digits(
    images: ImageSet, make_generator: MakeGenerator, deviation: float
) -> ReleasedGenerator:
    """Stands for a generator: training images of the labels asked for, with noise."""

    def show(_: int, labels: np.ndarray | None) -> np.ndarray:
        assert labels is not None
        stream = np.random.default_rng(5)
        split = images.train
        rows = [stream.choice(np.flatnonzero(split.labels == label)) for label in labels]
        noise = stream.normal(0.0, deviation, (len(rows), 16, 16, 1))
        return (split.images[rows] + noise).round().clip(0, 255).astype(np.uint8)

    shower = Showing(make_generator().config, show, torch.zeros(1))
    return cast("ReleasedGenerator", shower)


def width(comparison: Comparison, name: str) -> float:
    found = getattr(comparison, name)
    return float(found.high - found.low)


def test_a_generator_is_no_better_than_itself_and_that_is_sure(
    evaluator: Evaluator, make_generator: MakeGenerator
) -> None:
    same, own, other = compare_generators(evaluator, make_generator(), make_generator())
    assert (same.difference.low, same.difference.value, same.difference.high) == (0.0, 0.0, 0.0)
    np.testing.assert_array_equal(own, other)


def test_the_numbers_are_those_of_the_evaluation_and_may_be_compared_with_them(
    evaluator: Evaluator, make_generator: MakeGenerator
) -> None:
    generators = [make_generator(seed=seed) for seed in (0, 1)]
    comparison, *samples = compare_generators(evaluator, *generators)
    evaluations = [evaluator.evaluate(generator) for generator in generators]
    assert comparison.candidate == evaluations[0][0].gate.metrics["frechet_distance"]
    assert comparison.champion == evaluations[1][0].gate.metrics["frechet_distance"]
    assert comparison.difference.value == comparison.candidate.value - comparison.champion.value
    require_same_cards(comparison.card, evaluations[0][0].card)
    for own, (_, seen) in zip(samples, evaluations, strict=True):
        np.testing.assert_array_equal(own, seen)


def test_what_both_share_leaves_the_difference(
    digit_images: ImageSet, evaluator: Evaluator, make_generator: MakeGenerator
) -> None:
    near, far = (noisy_digits(digit_images, make_generator, sd) for sd in (20.0, 30.0))
    comparison, _, _ = compare_generators(evaluator, far, near)
    assert comparison.difference.low > 0
    unpaired = np.hypot(width(comparison, "candidate"), width(comparison, "champion"))
    assert width(comparison, "difference") < 0.8 * unpaired


def test_the_grids_lie_side_by_side_with_a_gap() -> None:
    left = np.zeros((20, 4, 5, 3), np.uint8)
    right = np.full((20, 4, 5, 3), 200, np.uint8)
    for labels in (None, np.arange(20) % 4):
        picture = side_by_side(left, right, labels, gap_pixels=7)
        columns = 5 if labels is None else 4
        side = columns * 6 - 1
        assert picture.shape[1] == 2 * side + 7
        assert (picture[:, side : side + 7] == 255).all()
        assert picture[0, 0, 0] == 0
        assert picture[0, -1, 0] == 200
