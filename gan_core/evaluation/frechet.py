"""The Fréchet distance between two sets of features, each taken as a Gaussian.

Always in float64: in float32 it is off by hundredths.
"""

from dataclasses import dataclass

import numpy as np

from gan_core.evaluation.estimate import SEED, Estimate, count_matrix, estimate

# Above, a replicate of its own takes seconds, and the distance is linearised instead.
MOST_RESAMPLED_DIMENSIONS = 256
CHUNK = 1000
DISTANCE_REPLICATES = 100

FRACTIONS = (0.25, 0.4, 0.6, 0.8, 1.0)
DRAWS_PER_FRACTION = 3


@dataclass(frozen=True)
class Gaussian:
    """Mean, shape (d,), and covariance, shape (d, d), of features."""

    mean: np.ndarray
    covariance: np.ndarray


def fit_gaussian(features: np.ndarray) -> Gaussian:
    """Sample mean and unbiased sample covariance.

    Args:
        features: Shape (n, d) with n at least 2.
    """
    features = np.asarray(features, np.float64)
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 feature vectors, not {len(features)}")
    return Gaussian(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False, ddof=1)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017).

    The trace of the square root is the sum of the square roots of the eigenvalues of the symmetric
    A^(1/2) B A^(1/2), which are those of A B; singular covariances are no trouble.
    """
    return float(_distances(a.mean, a.covariance, b.mean, b.covariance))


def _distances(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> np.ndarray:
    """The distance of each pair; all arguments may have the same leading dimensions."""
    difference = mean_a - mean_b
    root = _root(covariance_a)
    mixed = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace_of_root = np.sqrt(np.clip(mixed, 0.0, None)).sum(-1)
    traces = np.trace(covariance_a + covariance_b, axis1=-2, axis2=-1)
    distances: np.ndarray = np.square(difference).sum(-1) + traces - 2.0 * trace_of_root
    return distances


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root."""
    values, vectors = np.linalg.eigh(covariance)
    roots = np.sqrt(np.clip(values, 0.0, None))
    found: np.ndarray = (vectors * roots[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return found


@dataclass(frozen=True)
class ResampledMoments:
    """Of resampled sets: means, shape (b, d), and covariances, shape (b, d, d)."""

    means: np.ndarray
    covariances: np.ndarray


def distance_estimate(
    generated: np.ndarray, real: np.ndarray, moments: ResampledMoments | None = None
) -> Estimate:
    """The distance with its bootstrap interval; both sets are resampled.

    Args:
        generated: Features, shape (n, d).
        real: Features, shape (m, d).
        moments: `real_moments(real)`, where that is kept.
    """
    value = frechet_distance(fit_gaussian(generated), fit_gaussian(real))
    return estimate(value, distance_replicates(generated, real, moments), least=0.0)


def distance_replicates(
    generated: np.ndarray, real: np.ndarray, moments: ResampledMoments | None = None
) -> np.ndarray:
    """Distances between resampled sets, shape (replicates,).

    Sets of the same size are resampled in the same way at each call, so that the differences of two
    generators' replicates against the same real images are those of a paired bootstrap.
    """
    moments = moments or real_moments(real)
    if moments is None:
        return _linearised(generated, real)
    own = _resampled_moments(generated, SEED)
    return _distances(own.means, own.covariances, moments.means, moments.covariances)


def real_moments(real: np.ndarray) -> ResampledMoments | None:
    """The real side of the bootstrap; None in spaces where the distance is linearised."""
    if real.shape[1] > MOST_RESAMPLED_DIMENSIONS:
        return None
    return _resampled_moments(real, SEED + 1)


def _resampled_moments(
    features: np.ndarray, seed: int, replicates: int = DISTANCE_REPLICATES
) -> ResampledMoments:
    # The sums in float32, twice as fast: they tell how far the distance spreads, not where it is.
    members, dimensions = features.shape
    center = features.mean(0)
    counts = count_matrix(members, seed, replicates).astype(np.float32)
    above = np.triu_indices(dimensions)
    sums = np.zeros((replicates, dimensions))
    products = np.zeros((replicates, len(above[0])))
    for start in range(0, members, CHUNK):
        part = (features[start : start + CHUNK] - center).astype(np.float32)
        weights = counts[:, start : start + CHUNK]
        sums += weights @ part
        products += weights @ (part[:, above[0]] * part[:, above[1]])
    means = sums / members
    second = np.zeros((replicates, dimensions, dimensions))
    second[:, above[0], above[1]] = products
    second[:, above[1], above[0]] = products
    outer = members * means[:, :, None] * means[:, None, :]
    return ResampledMoments(means + center, (second - outer) / (members - 1))


def _linearised(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Replicates of the distance's first-order expansion in the two empirical distributions."""
    a, b = fit_gaussian(generated), fit_gaussian(real)
    value = frechet_distance(a, b)
    parts = (
        (influences(generated, a, b), SEED),
        (influences(real, b, a), SEED + 1),
    )
    moved = np.full(DISTANCE_REPLICATES, value)
    for found, seed in parts:
        moved += count_matrix(len(found), seed, DISTANCE_REPLICATES) @ found / len(found)
    return moved


def influences(features: np.ndarray, own: Gaussian, other: Gaussian) -> np.ndarray:
    """How much each feature vector moves the distance (Hampel 1974), shape (n,).

    The gradient of the distance is 2 (mu_a - mu_b) in the mean and I - T in the covariance of a,
    where T = B^(1/2) (B^(1/2) A B^(1/2))^(-1/2) B^(1/2) is the linear map of the optimal transport
    from a to b (Takatsu 2011).

    Args:
        features: Of set a, shape (n, d).
        own: Their Gaussian.
        other: The Gaussian of set b.
    """
    root = _root(other.covariance)
    values, vectors = np.linalg.eigh(root @ own.covariance @ root)
    positive = values > values.max() * 1e-12
    inverse = np.zeros_like(values)
    inverse[positive] = 1.0 / np.sqrt(values[positive])
    transport = root @ (vectors * inverse) @ vectors.T @ root
    gradient = np.eye(len(values)) - transport
    centred = features - own.mean
    quadratic = ((centred @ gradient) * centred).sum(1)
    found: np.ndarray = 2.0 * centred @ (own.mean - other.mean) + quadratic - quadratic.mean()
    return found


@dataclass(frozen=True)
class CountCurve:
    """The distance at several sample counts, and without the bias that a finite count brings.

    Attributes:
        counts: Generated samples at each point.
        distances: Mean distance there.
        extrapolated: The distance at infinitely many generated and real images.
    """

    counts: tuple[int, ...]
    distances: tuple[float, ...]
    extrapolated: float


def count_curve(generated: np.ndarray, real: np.ndarray) -> CountCurve:
    """Distances between random parts of both sets, and their extrapolation.

    The bias falls as one over the count (Chong and Forsyth 2020, there for generated images alone):
    with the same fraction of both sets, the distance is a line in one over the fraction.
    """
    stream = np.random.default_rng(SEED)
    counts, distances = [], []
    for fraction in FRACTIONS:
        sizes = [max(2, round(fraction * len(part))) for part in (generated, real)]
        draws = DRAWS_PER_FRACTION if fraction < 1 else 1
        found = [
            frechet_distance(
                *(
                    fit_gaussian(part[stream.permutation(len(part))[:size]])
                    for part, size in zip((generated, real), sizes, strict=True)
                )
            )
            for _ in range(draws)
        ]
        counts.append(sizes[0])
        distances.append(float(np.mean(found)))
    _, intercept = np.polyfit(1.0 / np.array(FRACTIONS), distances, 1)
    return CountCurve(tuple(counts), tuple(distances), float(intercept))
