import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from gan_core.evaluation.estimate import count_matrix
from gan_core.evaluation.frechet import (
    Gaussian,
    count_curve,
    distance_estimate,
    distance_replicates,
    fit_gaussian,
    frechet_distance,
    influences,
)

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


def normal(count: int, seed: int, shift: float = 0.0, dimensions: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimensions)) + shift


def test_the_distance_is_that_of_pytorch_fid() -> None:
    from pytorch_fid.fid_score import calculate_frechet_distance

    a, b = normal(500, 0) @ np.diag([1, 2, 3, 4, 5, 6]), normal(400, 1, 0.3)
    one, other = fit_gaussian(a), fit_gaussian(b)
    expected = calculate_frechet_distance(one.mean, one.covariance, other.mean, other.covariance)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


def test_the_interval_holds_the_expected_distance_nineteen_times_in_twenty() -> None:
    # The distance of samples of this size, not that of infinitely many, which is the curve's.
    expected = np.mean(
        [
            frechet_distance(
                fit_gaussian(normal(150, seed, 0.5)), fit_gaussian(normal(200, seed + 5000))
            )
            for seed in range(400)
        ]
    )
    held = 0
    for seed in range(100):
        found = distance_estimate(normal(150, seed + 9000, 0.5), normal(200, seed + 8000))
        held += found.low <= expected <= found.high
    assert 87 <= held <= 100


def test_replicates_are_the_distances_of_resampled_sets_to_first_order() -> None:
    a, b = normal(400, 0, 0.5) @ np.diag([1, 1, 2, 1, 1, 0.5]), normal(300, 1)
    exact = []
    for own, other in zip(count_matrix(400, 0), count_matrix(300, 1), strict=True):
        resampled = np.repeat(a, own.astype(int), axis=0), np.repeat(b, other.astype(int), axis=0)
        exact.append(frechet_distance(*map(fit_gaussian, resampled)))
    found = distance_replicates(a, b)
    assert found.std() == pytest.approx(np.std(exact), rel=0.1)
    assert np.corrcoef(found, exact)[0, 1] > 0.97


def test_few_images_in_many_dimensions_have_an_interval_of_about_the_true_width() -> None:
    def features(count: int, seed: int) -> np.ndarray:
        return normal(count, seed, dimensions=64) * np.linspace(2, 0.1, 64)

    distances = [
        frechet_distance(fit_gaussian(features(700, seed)), fit_gaussian(features(350, seed + 500)))
        for seed in range(40)
    ]
    found = distance_replicates(features(700, 1000), features(350, 2000)).std()
    assert np.std(distances) < found < 2 * np.std(distances)


def test_influences_are_the_derivative_of_the_distance() -> None:
    a, b = normal(50, 0, 0.5), normal(40, 1)
    own, other = Gaussian(a.mean(0), np.cov(a.T, ddof=0)), fit_gaussian(b)
    step = 1e-6
    weights = np.full(50, (1 - step) / 50)
    weights[7] += step
    mean = weights @ a
    covariance = (a - mean).T @ (weights[:, None] * (a - mean))
    moved = frechet_distance(Gaussian(mean, covariance), other) - frechet_distance(own, other)
    assert influences(a, own, other)[7] == pytest.approx(moved / step, rel=1e-3)


def test_many_dimensions_are_linearised_and_singular_covariances_no_trouble() -> None:
    found = distance_estimate(normal(60, 0, 1.0, 300), normal(50, 1, 0.0, 300))
    assert 0 < found.low < found.value < found.high


def test_replicates_of_two_generators_are_paired() -> None:
    real, good = normal(300, 0), normal(300, 1)
    bad = good + 0.05
    apart = distance_replicates(bad, real) - distance_replicates(good, real)
    assert apart.std() < 0.5 * distance_replicates(bad, real).std()


def test_the_extrapolated_distance_is_nearer_to_the_truth() -> None:
    # The true distance of these two normal distributions is 6 x 0.3^2.
    truth = 6 * 0.3**2
    errors = []
    for seed in range(20):
        curve = count_curve(normal(200, seed, 0.3), normal(200, seed + 100))
        assert curve.counts == (50, 80, 120, 160, 200)
        assert curve.distances[0] > curve.distances[-1]
        errors.append((curve.extrapolated - truth, curve.distances[-1] - truth))
    bias = np.mean(errors, axis=0)
    assert abs(bias[0]) < 0.2 * abs(bias[1])
