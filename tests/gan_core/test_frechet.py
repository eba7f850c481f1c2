import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from gan_core.evaluation.frechet import Gaussian, fit_gaussian, frechet_distance

SEEDS = st.integers(0, 10**6)


def random_gaussian(seed: int, dimensions: int = 12, rank: int | None = None) -> Gaussian:
    stream = np.random.default_rng(seed)
    factor = stream.normal(size=(dimensions, rank or dimensions))
    return Gaussian(stream.normal(size=dimensions), factor @ factor.T)


def test_a_shift_of_the_mean_counts_by_its_square() -> None:
    identity = np.eye(5)
    moved = Gaussian(np.full(5, 2.0), identity)
    assert frechet_distance(Gaussian(np.zeros(5), identity), moved) == pytest.approx(20.0)


@pytest.mark.parametrize("scale", [0.25, 4.0, 9.0])
def test_a_scaled_covariance_counts_by_its_standard_deviation(scale: float) -> None:
    # tr(C + s C - 2 sqrt(s) C) = (1 - sqrt(s))^2 tr C
    gaussian = random_gaussian(0)
    scaled = Gaussian(gaussian.mean, scale * gaussian.covariance)
    expected = (1 - np.sqrt(scale)) ** 2 * np.trace(gaussian.covariance)
    assert frechet_distance(gaussian, scaled) == pytest.approx(expected)


def test_independent_features_count_one_by_one() -> None:
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 4.0, 16.0])
    mean = np.zeros(3)
    found = frechet_distance(Gaussian(mean, np.diag(a)), Gaussian(mean, np.diag(b)))
    assert found == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())


@given(SEEDS, st.integers(1, 12))
def test_equal_sets_have_distance_zero_even_with_a_singular_covariance(
    seed: int, rank: int
) -> None:
    gaussian = random_gaussian(seed, rank=rank)
    assert frechet_distance(gaussian, gaussian) == pytest.approx(0.0, abs=1e-5)


@given(SEEDS, SEEDS)
def test_the_distance_agrees_with_the_square_root_of_the_matrix(one: int, other: int) -> None:
    a, b = random_gaussian(one), random_gaussian(other + 1)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    shift = a.mean - b.mean
    expected = shift @ shift + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(SEEDS, SEEDS, st.integers(1, 12))
def test_the_distance_is_symmetric_and_not_negative(one: int, other: int, rank: int) -> None:
    a, b = random_gaussian(one), random_gaussian(other, rank=rank)
    distance = frechet_distance(a, b)
    assert distance == pytest.approx(frechet_distance(b, a), rel=1e-6, abs=1e-5)
    assert distance > -1e-5


def test_fewer_samples_than_dimensions_are_no_trouble() -> None:
    stream = np.random.default_rng(0)
    a, b = stream.normal(size=(5, 40)), stream.normal(size=(7, 40))
    found = frechet_distance(fit_gaussian(a), fit_gaussian(b))
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values = np.linalg.eigvals(covariances[0] @ covariances[1]).real
    shift = a.mean(0) - b.mean(0)
    expected = shift @ shift + np.trace(sum(covariances)) - 2 * np.sqrt(values.clip(0)).sum()
    assert found == pytest.approx(expected, rel=1e-5)


def test_samples_of_one_distribution_come_closer_the_more_there_are() -> None:
    stream = np.random.default_rng(0)

    def distance(count: int) -> float:
        one, other = stream.normal(size=(2, count, 8))
        return frechet_distance(fit_gaussian(one), fit_gaussian(other))

    few, many = distance(100), distance(10_000)
    assert many < few / 20


def test_the_covariance_is_unbiased_and_in_float64() -> None:
    features = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    gaussian = fit_gaussian(features)
    centred = features.astype(np.float64) - features.astype(np.float64).mean(0)
    assert np.allclose(gaussian.covariance, centred.T @ centred / 8, rtol=1e-12)
    assert gaussian.covariance.dtype == gaussian.mean.dtype == np.float64


def test_features_of_one_dimension_are_measured() -> None:
    a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])
    assert frechet_distance(fit_gaussian(a), fit_gaussian(b)) == pytest.approx(9.0)


def test_one_image_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 feature vectors, not 1"):
        fit_gaussian(np.ones((1, 3)))
