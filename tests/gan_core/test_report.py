from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from gan_core.config import EvaluationSettings, FeatureNetworkSettings
from gan_core.data.image_set import ImageSet, ImageSplit
from gan_core.errors import FoundryError
from gan_core.evaluation.feature_network import FeatureNetwork, make_feature_network
from gan_core.evaluation.report import Evaluation, MetricCard, class_coverage, evaluate
from gan_core.generator import GeneratorConfig, ReleasedGenerator, Samples

MakeGenerator = Callable[..., ReleasedGenerator]


@dataclass
class Showing:
    """Stands for a generator that shows given images, and notes what it is asked for."""

    config: GeneratorConfig
    show: Callable[[int, np.ndarray | None], np.ndarray]
    asked: dict[str, Any] | None = None

    def sample_batches(
        self, count: int, *, seed: int, labels: np.ndarray | None
    ) -> Iterator[Samples]:
        self.asked = {"count": count, "seed": seed, "labels": labels}
        images = self.show(count, labels)
        for part in np.array_split(images, 3):
            yield Samples(part, np.zeros((len(part), 16)), np.zeros(len(part)), seed)


@pytest.fixture(scope="module")
def network(digit_images: ImageSet) -> FeatureNetwork:
    return make_feature_network(digit_images, FeatureNetworkSettings(epochs=8))


@pytest.fixture
def measure(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> Callable[..., Evaluation]:
    """Evaluates what shows given images as if it generated them."""

    def run(
        show: Callable[[int, np.ndarray | None], np.ndarray], *, conditional: bool = True
    ) -> Evaluation:
        shower = Showing(make_generator(conditional=conditional).config, show)
        settings = EvaluationSettings(samples=600)
        return evaluate(cast("ReleasedGenerator", shower), digit_images, network, settings)

    return run


def real_images(split: ImageSplit, labels: np.ndarray) -> np.ndarray:
    """A random real image of every label, none twice."""
    stream = np.random.default_rng(99)
    rows = {
        label: iter(stream.permutation(np.flatnonzero(split.labels == label)))
        for label in range(10)
    }
    return np.array([split.images[next(rows[label])] for label in labels])


def test_what_shows_training_images_scores_about_the_floor(
    digit_images: ImageSet, measure: Callable[..., Evaluation]
) -> None:
    found = measure(lambda _, labels: real_images(digit_images.train, labels))
    assert found.frechet_distance == pytest.approx(found.floor, rel=0.5)
    assert found.class_coverage == 1.0
    assert found.label_agreement is not None
    assert found.label_agreement > 0.97
    assert sum(found.class_shares.values()) == pytest.approx(1.0)


def test_what_shows_noise_scores_far_above_the_floor(measure: Callable[..., Evaluation]) -> None:
    stream = np.random.default_rng(0)
    noise = stream.integers(0, 256, (600, 16, 16, 1), dtype=np.uint8)
    found = measure(lambda *_: noise)
    assert found.frechet_distance > 10 * found.floor


def test_what_shows_one_class_covers_one_class_in_ten(
    digit_images: ImageSet, measure: Callable[..., Evaluation]
) -> None:
    image = digit_images.train.images[digit_images.train.labels == 3][:1]
    found = measure(lambda count, _: np.repeat(image, count, 0))
    assert found.class_coverage == 0.1
    assert found.class_shares["3"] == 1.0
    assert found.label_agreement == pytest.approx(0.1, abs=0.05)
    assert found.frechet_distance > 10 * found.floor


def test_generated_and_real_images_have_the_same_classes_in_the_same_numbers(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    judged: list[int] = []

    class Counting(FeatureNetwork):
        def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            judged.append(len(images))
            return super().__call__(images)

    shower = Showing(
        make_generator().config, lambda _, labels: real_images(digit_images.train, labels)
    )
    counting = Counting(network._net, network.config)
    settings = EvaluationSettings(samples=300, seed=5)
    card = evaluate(cast("ReleasedGenerator", shower), digit_images, counting, settings).card
    assert judged == [359, 300, 100, 100, 100]
    assert (card.samples, card.reference_images) == (300, 359)
    assert shower.asked is not None
    assert shower.asked["count"] == 300
    counts = np.bincount(shower.asked["labels"], minlength=10)
    expected = np.bincount(digit_images.train.labels, minlength=10) * 300 / 1438
    assert np.abs(counts - expected).max() < 20


def test_an_unconditional_generator_is_asked_for_no_labels(
    digit_images: ImageSet, measure: Callable[..., Evaluation]
) -> None:
    found = measure(lambda count, _: digit_images.train.images[:count], conditional=False)
    assert found.label_agreement is None
    assert found.class_coverage == 1.0


def test_without_classes_there_is_a_distance_and_a_floor_only(
    digit_images: ImageSet, make_generator: MakeGenerator
) -> None:
    unlabelled = replace(
        digit_images,
        class_names=(),
        train=ImageSplit(digit_images.train.images, np.full(1438, -1)),
        held_out=ImageSplit(digit_images.held_out.images, np.full(359, -1)),
    )
    network = make_feature_network(unlabelled, FeatureNetworkSettings())
    generator = make_generator(conditional=False, classes=0)
    found = evaluate(generator, unlabelled, network, EvaluationSettings(samples=100))
    assert found.class_coverage is None
    assert found.class_shares == {}
    assert found.frechet_distance > found.floor >= 0


def test_an_evaluation_is_repeated_to_the_same_numbers(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    settings = EvaluationSettings(samples=100)
    first, second = (evaluate(make_generator(), digit_images, network, settings) for _ in range(2))
    assert first == second


def test_the_number_of_samples_is_at_most_that_of_the_training_images(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    found = evaluate(make_generator(), digit_images, network, EvaluationSettings())
    assert found.card.samples == 1438


def test_numbers_that_do_not_compare_have_different_cards(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    def card(generator_seed: int = 0, **settings: int) -> MetricCard:
        generator = make_generator(seed=generator_seed)
        chosen = EvaluationSettings(**{"samples": 100, **settings})
        return evaluate(generator, digit_images, network, chosen).card

    assert card() == card(generator_seed=1), "the card does not depend on the generator"
    assert card() != card(samples=101)
    assert card() != card(seed=1)


def test_the_line_beside_the_number_says_how_it_was_measured(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    settings = EvaluationSettings(samples=100)
    line = evaluate(make_generator(), digit_images, network, settings).card.line
    for part in (network.sha256[:8], "100 samples", "359 images of digits held_out", "16x16x1"):
        assert part in line
    assert "\n" not in line


def test_an_evaluation_is_read_as_it_was_written(
    digit_images: ImageSet,
    network: FeatureNetwork,
    make_generator: MakeGenerator,
    tmp_path: Path,
) -> None:
    found = evaluate(make_generator(), digit_images, network, EvaluationSettings(samples=100))
    found.write(tmp_path)
    assert Evaluation.read(tmp_path) == found


def test_networks_and_images_of_different_shapes_are_refused(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    pixels = np.zeros((4, 32, 16, 1), np.uint8)
    split = ImageSplit(pixels, np.zeros(4, np.int64))
    other = replace(digit_images, train=split, held_out=split)
    sentence = "generator 16x16x1, images 32x16x1, feature network 16x16x1"
    with pytest.raises(FoundryError, match=sentence):
        evaluate(make_generator(), other, network, EvaluationSettings())


def test_a_single_held_out_image_is_an_error_of_the_users(
    digit_images: ImageSet, network: FeatureNetwork, make_generator: MakeGenerator
) -> None:
    one = ImageSplit(digit_images.held_out.images[:1], digit_images.held_out.labels[:1])
    with pytest.raises(FoundryError):
        evaluate(
            make_generator(),
            replace(digit_images, held_out=one),
            network,
            EvaluationSettings(samples=100),
        )


def test_a_class_is_covered_by_a_tenth_of_its_real_share() -> None:
    real = np.repeat([0, 1], 500)
    just = np.repeat([0, 1], [950, 50])
    hardly = np.repeat([0, 1], [951, 49])
    assert class_coverage(just, real, ("a", "b")) == ({"a": 0.95, "b": 0.05}, 1.0)
    assert class_coverage(hardly, real, ("a", "b"))[1] == 0.5


def test_a_class_without_real_images_does_not_count() -> None:
    classes = np.array([0, 1])
    assert class_coverage(classes, classes, ("a", "b", "c"))[1] == 1.0
