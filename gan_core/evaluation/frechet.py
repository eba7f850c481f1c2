"""The Fréchet distance between two sets of features, each taken as a Gaussian.

Always in float64: in float32 it is off by hundredths.
"""

from dataclasses import dataclass

import numpy as np


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
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace_of_root = np.sqrt(np.clip(mixed, 0.0, None)).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(difference @ difference + traces - 2.0 * trace_of_root)
