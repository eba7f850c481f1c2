"""The kernel distance between two sets of features (KID, Bińkowski et al. 2018)."""

import numpy as np

from gan_core.evaluation.estimate import SEED, Estimate, count_matrix, estimate

MOST_IMAGES = 1000


def kernel_distance(generated: np.ndarray, real: np.ndarray) -> Estimate:
    """The unbiased estimator with the cubic kernel ((x.y)/d + 1)^3, and its bootstrap interval.

    As torch-fidelity computes it with one subset, without importing it: that takes longer than
    the computation. Of each set as many images, at most `MOST_IMAGES`. The value may be slightly
    negative where the sets are alike.

    Args:
        generated: Features, shape (n, d) with n at least 2.
        real: Features, shape (m, d) with m at least 2.
    """
    count = min(len(generated), len(real), MOST_IMAGES)
    stream = np.random.default_rng(SEED)
    x, y = (
        points[np.sort(stream.permutation(len(points))[:count])].astype(np.float64)
        for points in (generated, real)
    )
    xx, xy, yy = ((a @ b.T / a.shape[1] + 1.0) ** 3 for a, b in ((x, x), (x, y), (y, y)))

    def distances(x_counts: np.ndarray, y_counts: np.ndarray) -> np.ndarray:
        between = ((x_counts @ xy) * y_counts).sum(1) / count**2
        return _mean_of_pairs(xx, x_counts) + _mean_of_pairs(yy, y_counts) - 2.0 * between

    once = np.ones((1, count))
    replicates = distances(count_matrix(count, SEED), count_matrix(count, SEED + 1))
    # Of a handful of images some replicates are one image alone, which has no pair.
    return estimate(float(distances(once, once)[0]), replicates[np.isfinite(replicates)])


def _mean_of_pairs(kernel: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over pairs of different images of each resampled set, shape (replicates,)."""
    # An image that was drawn twice is no pair with itself: that would be a distance of zero.
    squares = np.square(counts)
    sums = ((counts @ kernel) * counts).sum(1) - squares @ np.diagonal(kernel)
    pairs = counts.sum(1) ** 2 - squares.sum(1)
    means: np.ndarray = np.divide(sums, pairs, out=np.full_like(sums, np.nan), where=pairs > 0)
    return means
