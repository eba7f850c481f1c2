"""What a classifier sees in samples: which classes, how often, how surely."""

import numpy as np
import torch

from gan_core.evaluation.estimate import Estimate, count_matrix, estimate

# A class counts as covered when the samples show it at least a tenth as often as real images do.
COVERED_SHARE = 0.1


def class_shares(classes: np.ndarray, count: int) -> np.ndarray:
    """Share of the images in each class, shape (count,).

    Args:
        classes: Class of each image, int64, shape (n,).
        count: Number of classes.
    """
    shares: np.ndarray = np.bincount(classes, minlength=count) / len(classes)
    return shares


def covered_share(classes: np.ndarray, real_shares: np.ndarray) -> float:
    """Share of the real classes that a set of samples shows.

    Args:
        classes: Class of each sample, int64, shape (n,).
        real_shares: Share of the real images in each class, shape (classes,).
    """
    return float(_covered(class_shares(classes, len(real_shares)), real_shares))


def coverage_estimate(classes: np.ndarray, real_shares: np.ndarray) -> Estimate:
    """`covered_share` with its interval."""
    replicates = _covered(_resampled_shares(classes, len(real_shares)), real_shares)
    return estimate(covered_share(classes, real_shares), replicates, least=0.0, most=1.0)


def divergence_estimate(classes: np.ndarray, real_shares: np.ndarray) -> Estimate:
    """KL divergence, in nats, of the samples' class frequencies from the real ones.

    As in the Stacked-MNIST comparisons (Metz et al. 2017): sum of q log(q / p) over the classes,
    with q of the samples. Infinite if the samples show a class whose real share is 0.
    """
    value = _divergence(class_shares(classes, len(real_shares)), real_shares)
    replicates = _divergence(_resampled_shares(classes, len(real_shares)), real_shares)
    if not np.isfinite(replicates).all():
        return Estimate(value=float(value), low=float(value), high=float("inf"))
    return estimate(float(value), replicates, least=0.0)


def inception_score(logits: np.ndarray) -> Estimate:
    """exp(E KL(p(y|x) || p(y))) of a classifier's predictions (Salimans et al. 2016).

    Over all samples at once, as torch-fidelity computes it with one split; importing that takes
    longer than the computation.

    Args:
        logits: Shape (n, classes).
    """
    logs = torch.from_numpy(np.ascontiguousarray(logits)).double().log_softmax(1).numpy()
    probabilities = np.exp(logs)
    of_each = (probabilities * logs).sum(1)

    def scores(counts: np.ndarray) -> np.ndarray:
        means = counts @ probabilities / len(logits)
        of_means = (means * np.log(np.clip(means, 1e-300, None))).sum(1)
        found: np.ndarray = np.exp(counts @ of_each / len(logits) - of_means)
        return found

    once = np.ones((1, len(logits)))
    return estimate(float(scores(once)[0]), scores(count_matrix(len(logits))), least=1.0)


def _resampled_shares(classes: np.ndarray, count: int) -> np.ndarray:
    """Shares in each bootstrap replicate, shape (replicates, count)."""
    shares: np.ndarray = count_matrix(len(classes)) @ np.eye(count)[classes] / len(classes)
    return shares


def _covered(shares: np.ndarray, real_shares: np.ndarray) -> np.ndarray:
    present = real_shares > 0
    covered: np.ndarray = (shares >= COVERED_SHARE * real_shares)[..., present].mean(-1)
    return covered


def _divergence(shares: np.ndarray, real_shares: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * np.log(shares / real_shares), 0.0)
    total: np.ndarray = terms.sum(-1)
    return total
