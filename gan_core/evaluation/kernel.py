"""The kernel distance between two sets of features (KID, Bińkowski et al. 2018)."""

import numpy as np
import scipy.stats
import torch

from gan_core.evaluation.estimate import LEVEL, SEED, Estimate

MOST_BLOCK_IMAGES = 500
BLOCKS = 10


def kernel_distance(generated: np.ndarray, real: np.ndarray) -> Estimate:
    """Mean of the unbiased estimator over disjoint blocks, with the t interval of that mean.

    The cubic kernel ((x.y)/d + 1)^3 and the estimator are torch-fidelity's. Its own subsets
    overlap, and their spread says nothing of the mean's error; disjoint blocks are independent. The
    value may be slightly negative where the sets are alike.

    Args:
        generated: Features, shape (n, d) with n at least 4.
        real: Features, shape (m, d) with m at least 4.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    fewest = min(len(generated), len(real))
    blocks = min(BLOCKS, fewest // 2)
    size = min(MOST_BLOCK_IMAGES, fewest // blocks)
    stream = np.random.default_rng(SEED)
    order, real_order = stream.permutation(len(generated)), stream.permutation(len(real))
    found = [
        kid_features_to_metric(
            torch.from_numpy(generated[order[start : start + size]]),
            torch.from_numpy(real[real_order[start : start + size]]),
            kid_subsets=1,
            kid_subset_size=size,
            verbose=False,
        )[KEY_METRIC_KID_MEAN]
        for start in range(0, blocks * size, size)
    ]
    value = float(np.mean(found))
    reach = scipy.stats.t.ppf((1 + LEVEL) / 2, blocks - 1) * scipy.stats.sem(found)
    return Estimate(value=value, low=value - reach, high=value + reach)
