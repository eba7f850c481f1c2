from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks.broken_samples import BROKEN, training_images
from gan_core.data.image_set import ImageSet, ImageSplit
from gan_core.errors import FoundryError
from gan_core.evaluation.card import MetricCard, require_same_cards
from gan_core.evaluation.checks import run_checks
from gan_core.evaluation.evaluator import Evaluator
from gan_core.evaluation.feature_network import FeatureNetwork, make_feature_network
from gan_core.evaluation.real_images import Networks, RealImages, floor_rows
from gan_core.evaluation.report import Evaluation
from gan_core.evaluation_settings import CheckSettings, EvaluationSettings, FeatureNetworkSettings
from gan_core.generator import GeneratorConfig, ReleasedGenerator

MakeGenerator = Callable[..., ReleasedGenerator]
Show = Callable[[int, np.ndarray | None], np.ndarray]
Judge = Callable[..., Evaluation]

COUNT = 700


@dataclass
class Showing:
    """Stands for a generator that shows given images, and notes what it is asked for."""

    config: GeneratorConfig
    show: Show
    output: torch.Tensor
    asked: dict[str, Any] | None = None

    def sample(self, count: int, *, seed: int, labels: np.ndarray | None) -> np.ndarray:
        self.asked = {"count": count, "seed": seed, "labels": labels}
        return self.show(count, labels)

    def output_batches(
        self, count: int, *, seed: int, labels: np.ndarray | None
    ) -> Iterator[torch.Tensor]:
        yield self.output[:count]


@pytest.fixture(scope="module")
def network(digit_images: ImageSet) -> FeatureNetwork:
    return make_feature_network(digit_images, FeatureNetworkSettings(epochs=15))


def open_evaluator(images: ImageSet, network: FeatureNetwork, **settings: Any) -> Evaluator:
    chosen = EvaluationSettings(**{"samples": COUNT, **settings})
    networks = Networks.choose(network, images, chosen, FeatureNetworkSettings())
    return Evaluator(images, networks, RealImages.measure(images, networks, chosen), chosen)


@pytest.fixture(scope="module")
def evaluator(digit_images: ImageSet, network: FeatureNetwork) -> Evaluator:
    return open_evaluator(digit_images, network)


@pytest.fixture
def judge(evaluator: Evaluator, make_generator: MakeGenerator) -> Judge:
    """Evaluates what shows given images as if it generated them."""

    def run(show: Show, *, conditional: bool = True, output: float = 0.0) -> Evaluation:
        config = make_generator(conditional=conditional).config
        shower = Showing(config, show, torch.full((COUNT, 1, 16, 16), output))
        return evaluator.evaluate(cast("ReleasedGenerator", shower))[0]

    return run


def other_real_images(images: ImageSet, evaluator: Evaluator) -> Show:
    """Held-out images of the labels asked for, moved a little: what a good generator would show."""

    def show(_: int, labels: np.ndarray | None) -> np.ndarray:
        assert labels is not None
        stream = np.random.default_rng(5)
        split = images.held_out
        rows = [stream.choice(np.flatnonzero(split.labels == label)) for label in labels]
        shifts = stream.integers(-1, 2, (len(rows), 2))
        return np.array(
            [
                np.roll(split.images[row], shift, axis=(0, 1))
                for row, shift in zip(rows, shifts, strict=True)
            ]
        )

    return show


def failed(found: Evaluation) -> set[str]:
    return {check.name for check in found.checks if not check.passed}


def test_a_healthy_generator_passes_every_check(
    digit_images: ImageSet, judge: Judge, evaluator: Evaluator
) -> None:
    found = judge(other_real_images(digit_images, evaluator))
    assert failed(found) == set(), found.checks
    assert found.passed
    assert found.class_coverage == 1.0
    assert found.label_agreement is not None
    assert found.label_agreement > 0.95
    assert sum(found.class_shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", BROKEN)
def test_a_generator_broken_on_purpose_is_caught(
    name: str, digit_images: ImageSet, judge: Judge
) -> None:
    show, check = BROKEN[name]
    found = judge(lambda *_: show(digit_images, COUNT), conditional=False)
    assert check in failed(found), {name: e.text for name, e in found.estimates().items()}
    assert not found.passed


@pytest.mark.parametrize("seed", range(3))
def test_a_generator_half_of_whose_latents_are_dead_is_caught(
    seed: int, digit_images: ImageSet, judge: Judge
) -> None:
    # A linear generator: principal components in the place of latents, the later half unused.
    pixels = digit_images.train.images.reshape(1438, -1) / 1.0
    mean = pixels.mean(0)
    _, sizes, components = np.linalg.svd(pixels - mean, full_matrices=False)
    stream = np.random.default_rng(seed)
    latents = stream.normal(size=(COUNT, 4)) * sizes[:4] / np.sqrt(1438)
    samples = (mean + latents @ components[:4]).clip(0, 255).round().astype(np.uint8)
    found = judge(lambda *_: samples.reshape(COUNT, 16, 16, 1), conditional=False)
    assert "collapse" in failed(found)


@pytest.mark.parametrize(
    ("output", "value"), [(np.nan, "non finite share"), (1.5, "out of range share")]
)
def test_what_rounding_hides_is_caught(
    output: float, value: str, digit_images: ImageSet, judge: Judge, evaluator: Evaluator
) -> None:
    found = judge(other_real_images(digit_images, evaluator), output=output)
    assert failed(found) == {"broken_output"}
    (check,) = (check for check in found.checks if not check.passed)
    assert f"{value} is 1, not at most 0" in check.message


def test_a_number_that_is_none_satisfies_no_bound() -> None:

    outcome = {
        check.name: check.passed for check in run_checks({"recall_ratio": np.nan}, CheckSettings())
    }
    assert outcome == {"collapse": False, "memorisation": True, "broken_output": True}


def test_training_images_score_the_floor_and_are_named_as_nearest(
    digit_images: ImageSet, judge: Judge
) -> None:
    found = judge(lambda *_: training_images(digit_images, COUNT))
    for name, floor in found.gate.floor.items():
        assert found.gate.metrics[name] == floor
    assert found.extrapolated == pytest.approx(found.floor_extrapolated, rel=1e-6)
    rows = floor_rows(digit_images, EvaluationSettings(samples=COUNT))
    for pair in found.nearest_pairs:
        assert pair.distance == 0.0
        np.testing.assert_array_equal(
            digit_images.train.images[pair.training_image],
            digit_images.train.images[rows[pair.sample]],
        )


def test_every_number_has_an_interval_and_a_second_space_beside_it(
    digit_images: ImageSet, judge: Judge, evaluator: Evaluator
) -> None:
    found = judge(other_real_images(digit_images, evaluator))
    metrics = {"frechet_distance", "kid", "precision", "recall", "density", "coverage"}
    classifier = {"inception_score", "class_coverage", "class_kl"}
    assert set(found.gate.metrics) == metrics | classifier
    assert set(found.second.metrics) == {"frechet_distance", "kid"}
    assert found.second.card.feature_network == "random R64 (seed 0)"
    summary = found.summary()
    for name in found.estimates():
        low, high = summary[f"{name}_ci"]
        assert low <= summary[name] <= high
    assert summary["passed"] is True
    assert summary["card"]["line"] == found.card.line


def test_rows_of_classes_say_where_samples_went(digit_images: ImageSet, judge: Judge) -> None:
    image = digit_images.train.images[digit_images.train.labels == 3][:1]
    found = judge(lambda count, _: np.repeat(image, count, 0))
    rows = {row.name: row for row in found.classes}
    assert found.class_coverage == 0.1
    assert rows["3"].share == 1.0
    assert rows["3"].agreement == 1.0
    assert rows["4"].agreement == 0.0
    assert rows["4"].diversity == 0.0
    assert rows["4"].real_share == pytest.approx(0.1, abs=0.03)


def test_an_unconditional_generator_is_asked_for_no_labels(
    digit_images: ImageSet, evaluator: Evaluator, make_generator: MakeGenerator
) -> None:
    config = make_generator(conditional=False).config
    shower = Showing(
        config, lambda count, _: digit_images.train.images[:count], torch.zeros(1, 1, 16, 16)
    )
    found, samples = evaluator.evaluate(cast("ReleasedGenerator", shower))
    assert shower.asked == {"count": COUNT, "seed": 20_000, "labels": None}
    assert found.label_agreement is None
    assert len(samples) == COUNT


def test_without_classes_two_random_networks_look(
    digit_images: ImageSet, make_generator: MakeGenerator
) -> None:
    unlabelled = replace(
        digit_images,
        class_names=(),
        train=ImageSplit(digit_images.train.images, np.full(1438, -1)),
        held_out=ImageSplit(digit_images.held_out.images, np.full(359, -1)),
    )
    network = make_feature_network(unlabelled, FeatureNetworkSettings())
    evaluator = open_evaluator(unlabelled, network, samples=100)
    found, _ = evaluator.evaluate(make_generator(conditional=False, classes=0))
    assert found.class_coverage is None
    assert found.class_shares == {}
    assert found.frechet_distance > found.floor >= 0
    assert found.card.feature_network == "random R64 (seed 0)"
    assert found.second.card.feature_network == "random R64 (seed 1)"


def test_samples_of_unknown_classes_are_as_diverse_as_all_real_images(
    digit_images: ImageSet, tmp_path: Path
) -> None:
    network = make_feature_network(digit_images, FeatureNetworkSettings(kind="random"))
    evaluator = open_evaluator(digit_images, network)
    evaluator.real.save(tmp_path)
    evaluator = replace(evaluator, real=RealImages.load(tmp_path))
    real = evaluator.evaluate_images(digit_images.train.images[:COUNT])
    assert real.images["intra_class_diversity"].value == pytest.approx(1.0, abs=0.05)
    for digit in (0, 8):
        alike = digit_images.train.images[digit_images.train.labels == digit]
        found = evaluator.evaluate_images(alike)
        assert found.images["intra_class_diversity"].value < CheckSettings().diversity_least
        assert "collapse" in failed(found)


def test_an_evaluation_is_repeated_to_the_same_numbers_and_read_as_it_was_written(
    evaluator: Evaluator, make_generator: MakeGenerator, tmp_path: Path
) -> None:
    first, _ = evaluator.evaluate(make_generator())
    second, _ = evaluator.evaluate(make_generator())
    assert first == second
    first.write(tmp_path)
    assert Evaluation.read(tmp_path) == first


def test_a_class_that_the_held_out_images_lack_is_far_but_not_endlessly(
    digit_images: ImageSet, network: FeatureNetwork
) -> None:
    rows = digit_images.held_out.labels != 3
    held_out = ImageSplit(digit_images.held_out.images[rows], digit_images.held_out.labels[rows])
    evaluator = open_evaluator(replace(digit_images, held_out=held_out), network)
    found = evaluator.evaluate_images(digit_images.train.images[:COUNT])
    assert 0.1 < found.gate.metrics["class_kl"].value < 2.0


def test_the_real_images_are_kept_as_they_were_measured(
    evaluator: Evaluator, make_generator: MakeGenerator, tmp_path: Path
) -> None:
    evaluator.real.save(tmp_path)
    loaded = replace(evaluator, real=RealImages.load(tmp_path))
    generator = make_generator()
    assert loaded.evaluate(generator)[0] == evaluator.evaluate(generator)[0]


def test_the_number_of_samples_is_at_most_that_of_the_training_images(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    evaluator = open_evaluator(digit_images, network, samples=10_000)
    assert evaluator.evaluate(make_generator())[0].card.samples == 1438


def test_numbers_whose_cards_differ_are_not_compared(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    def card(generator_seed: int = 0, **settings: int) -> MetricCard:
        evaluator = open_evaluator(digit_images, network, **{"samples": 100, **settings})
        return evaluator.evaluate(make_generator(seed=generator_seed))[0].card

    require_same_cards(card(), card(generator_seed=1))
    with pytest.raises(FoundryError, match="samples is 100 for the one and 101 for the other"):
        require_same_cards(card(), card(samples=101))
    with pytest.raises(FoundryError, match="seed is 20000 for the one and 1 for the other"):
        require_same_cards(card(), card(seed=1))


def test_the_line_beside_the_number_says_how_it_was_measured(
    evaluator: Evaluator, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    line = evaluator.evaluate(make_generator())[0].card.line
    for part in (
        network.sha256[:8],
        "700 samples against 359 images of digits held_out",
        "16x16x1",
        "resize none",
        "8 bits",
        "torch-fidelity 0.4",
    ):
        assert part in line
    assert "\n" not in line


def test_images_of_anyone_are_judged(digit_images: ImageSet, evaluator: Evaluator) -> None:
    split = digit_images.held_out
    found = evaluator.evaluate_images(np.array(split.images), split.labels)
    assert found.frechet_distance == pytest.approx(0.0, abs=1e-6)
    assert found.label_agreement == pytest.approx(found.card.feature_network_held_out_accuracy)
    assert "non_finite_share" not in found.images
    with pytest.raises(FoundryError, match="samples 8x8x1, images 16x16x1"):
        evaluator.evaluate_images(np.zeros((5, 8, 8, 1), np.uint8))
    with pytest.raises(FoundryError, match="there is 1 image, but a distance needs at least 2"):
        evaluator.evaluate_images(np.array(split.images[:1]))


def test_networks_and_images_of_different_shapes_are_refused(
    evaluator: Evaluator, make_generator: MakeGenerator
) -> None:
    images = replace(
        evaluator.images,
        train=ImageSplit(np.zeros((4, 32, 16, 1), np.uint8), np.zeros(4, np.int64)),
    )
    sentence = "generator 16x16x1, images 32x16x1, feature network 16x16x1"
    with pytest.raises(FoundryError, match=sentence):
        replace(evaluator, images=images).evaluate(make_generator())


def test_a_single_held_out_image_is_an_error_of_the_users(
    digit_images: ImageSet, network: FeatureNetwork
) -> None:
    one = ImageSplit(digit_images.held_out.images[:1], digit_images.held_out.labels[:1])
    with pytest.raises(FoundryError, match="1 held-out images, but a distance needs 2 of each"):
        open_evaluator(replace(digit_images, held_out=one), network)


def test_real_images_that_are_all_alike_are_no_division_by_zero(
    digit_images: ImageSet, network: FeatureNetwork
) -> None:
    same = np.full((40, 16, 16, 1), 9, np.uint8)
    split = ImageSplit(same, np.arange(40) % 10)
    found = open_evaluator(replace(digit_images, train=split, held_out=split), network)
    measured = found.evaluate_images(digit_images.train.images[:40])
    assert failed(measured) >= {"broken_output"}


def test_copies_are_seen_though_held_out_images_are_copies_too(
    digit_images: ImageSet, network: FeatureNetwork
) -> None:
    train, held_out = digit_images.train, digit_images.held_out
    mixed = np.concatenate([train.images[:20], held_out.images[20:]])
    images = replace(digit_images, held_out=ImageSplit(mixed, held_out.labels))
    shown = np.concatenate([train.images[:150], np.roll(held_out.images[-150:], 1, axis=1)])
    found = open_evaluator(images, network).evaluate_images(shown)
    assert found.estimates()["near_copy_share"].value == pytest.approx(0.5, abs=0.02)
    assert "memorisation" in failed(found)


def test_a_handful_of_images_is_measured_as_far_as_it_goes(
    digit_images: ImageSet, network: FeatureNetwork
) -> None:
    few = replace(
        digit_images,
        held_out=ImageSplit(digit_images.held_out.images[:3], digit_images.held_out.labels[:3]),
    )
    found = open_evaluator(few, network).evaluate_images(digit_images.train.images[:40])
    assert found.frechet_distance > 0
    assert "precision" not in found.gate.metrics
