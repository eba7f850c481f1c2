"""The Fréchet distance between two sets of features, each taken as a Gaussian.

Always in float64: in float32 it is off by hundredths.
"""

from dataclasses import dataclass

import numpy as np

from gan_core.evaluation.estimate import SEED, Estimate, count_matrix, estimate

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
    difference = a.mean - b.mean
    root = _root(a.covariance)
    mixed = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace_of_root = np.sqrt(np.clip(mixed, 0.0, None)).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(difference @ difference + traces - 2.0 * trace_of_root)


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root."""
    values, vectors = np.linalg.eigh(covariance)
    root: np.ndarray = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    return root


def distance_estimate(generated: np.ndarray, real: np.ndarray) -> Estimate:
    """The distance with its bootstrap interval; both sets are resampled.

    Args:
        generated: Features, shape (n, d).
        real: Features, shape (m, d).
    """
    value = frechet_distance(fit_gaussian(generated), fit_gaussian(real))
    return estimate(value, distance_replicates(generated, real), least=0.0)


def distance_replicates(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Distances between resampled sets to first order in what is resampled, shape (replicates,).

    A resampled set has fewer different members, which raises its distance and, with few images in
    many dimensions, doubles its spread; the expansion does not have that. It needs two
    decompositions in all, where every resampled distance needs its own.

    Sets of the same size are resampled in the same way at each call, so that the differences of two
    generators' replicates against the same real images are those of a paired bootstrap.
    """
    a, b = fit_gaussian(generated), fit_gaussian(real)
    own, other = influences(generated, a, b), influences(real, b, a)
    moved: np.ndarray = count_matrix(len(own), SEED) @ own / len(own)
    moved = moved + count_matrix(len(other), SEED + 1) @ other / len(other)
    return frechet_distance(a, b) + moved


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
