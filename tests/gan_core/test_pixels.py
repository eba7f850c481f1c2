import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from gan_core.evaluation.pixels import (
    constant_share,
    contrast,
    nearest_images,
    pairwise_distance,
    pairwise_distances,
    pooled,
)


def random_images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)


def test_the_nearest_image_is_found_across_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan_core.evaluation.pixels.SEARCH_CHUNK", 30)
    monkeypatch.setattr("gan_core.evaluation.pixels.CHUNK_VALUES", 200)  # three images
    images, training = random_images(10), random_images(95, 1)
    found = nearest_images(images, training, pooled(training))
    differences = images[:, None].astype(float) - training[None]
    distances = np.sqrt(np.square(differences).sum(axis=(2, 3, 4)))
    assert found.rows.tolist() == distances.argmin(1).tolist()
    assert found.distances == pytest.approx(distances.min(1))


def test_a_copy_has_distance_zero() -> None:
    training = np.random.default_rng(0).integers(0, 256, (50, 40, 30, 3), dtype=np.uint8)
    found = nearest_images(training[[7, 31]], training, pooled(training))
    assert found.rows.tolist() == [7, 31]
    assert found.distances.tolist() == [0.0, 0.0]


def test_the_pairwise_distance_is_taken_within_classes() -> None:
    images = np.zeros((4, 2, 2, 1), np.uint8)
    images[2:] = 255
    assert pairwise_distance(images, np.array([0, 0, 1, 1])) == 0.0
    assert pairwise_distance(images, np.array([0, 1, 0, 1])) == 1.0
    assert pairwise_distance(images, None) > 0.3  # one pair of three at least
    assert pairwise_distance(images[:1], None) == 0.0


def test_every_image_is_in_a_pair_and_none_is_paired_with_itself() -> None:
    images = np.zeros((150, 1, 1, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(150)
    steps = np.rint(pairwise_distances(images, None) * 255)
    assert len(steps) == 149
    assert steps.min() >= 1


def test_images_that_lie_beside_their_likes_are_no_less_diverse() -> None:
    one = random_images(300)
    film = np.repeat(one[:30], 10, axis=0)  # ten frames that are all alike, and the next ten
    assert pairwise_distance(film, None) > 0.9 * pairwise_distance(one, None)


@pytest.mark.parametrize("measure", [contrast, lambda images: pairwise_distances(images, None)])
def test_memory_does_not_grow_with_the_images(measure: Callable[[np.ndarray], object]) -> None:
    def peak_bytes(count: int) -> int:
        images = np.zeros((count, 32, 32, 3), np.uint8)
        tracemalloc.start()
        measure(images)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak_bytes(100)  # what is made once
    assert peak_bytes(1600) < 1.2 * peak_bytes(200)


def test_images_of_one_colour_are_constant() -> None:
    images = random_images(4)
    images[0] = [10, 20, 30]
    assert constant_share(images) == 0.25
    assert constant_share(np.zeros((3, 2, 2, 1), np.uint8)) == 1.0


def test_the_contrast_is_the_standard_deviation_of_all_pixels() -> None:
    images = random_images(20)
    assert contrast(images) == pytest.approx(images.std())
    assert contrast(np.full((3, 2, 2, 1), 9, np.uint8)) == 0.0
