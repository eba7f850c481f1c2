import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from gan_core.evaluation.kernel import _mean_of_pairs, kernel_distance


def cubic_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Bińkowski et al. 2018, equation 4 with the cubic kernel, written out."""
    kernel = lambda x, y: (x @ y.T / a.shape[1] + 1) ** 3  # noqa: E731
    n, m = len(a), len(b)
    aa, bb = kernel(a, a), kernel(b, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return within - 2 * kernel(a, b).mean()


def test_the_value_is_the_papers_formula() -> None:
    stream = np.random.default_rng(0)
    a, b = stream.normal(size=(40, 6)) + 0.5, stream.normal(size=(40, 6))
    assert kernel_distance(a, b).value == pytest.approx(cubic_distance(a, b), rel=1e-9)


def test_large_sets_are_measured_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan_core.evaluation.kernel.MOST_IMAGES", 30)
    stream = np.random.default_rng(0)
    a, b = stream.normal(size=(80, 6)) + 0.5, stream.normal(size=(60, 6))
    orders = np.random.default_rng(0)
    rows = [np.sort(orders.permutation(size)[:30]) for size in (80, 60)]
    expected = cubic_distance(a[rows[0]], b[rows[1]])
    assert kernel_distance(a, b).value == pytest.approx(expected, rel=1e-9)


def test_an_image_drawn_twice_is_no_pair_with_itself() -> None:
    points = np.random.default_rng(0).normal(size=(5, 2))
    kernel = points @ points.T
    counts = np.array([[2.0, 0.0, 1.0, 1.0, 1.0]])
    rows = [0, 0, 2, 3, 4]
    pairs = [kernel[i, j] for i in rows for j in rows if i != j]
    assert _mean_of_pairs(kernel, counts)[0] == pytest.approx(np.mean(pairs))


def test_the_value_is_that_of_torch_fidelity() -> None:
    stream = np.random.default_rng(1)
    a, b = stream.normal(size=(300, 8)), stream.normal(size=(300, 8)) * 1.3
    library = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1, kid_subset_size=300, verbose=False
    )
    assert kernel_distance(a, b).value == pytest.approx(library[KEY_METRIC_KID_MEAN], rel=1e-6)


def test_the_interval_of_equal_distributions_holds_zero_nineteen_times_in_twenty() -> None:
    stream = np.random.default_rng(2)
    held = 0
    for _ in range(100):
        found = kernel_distance(stream.normal(size=(200, 4)), stream.normal(size=(200, 4)))
        held += found.low <= 0 <= found.high
    assert 88 <= held <= 100


def test_sets_of_different_sizes_are_compared() -> None:
    stream = np.random.default_rng(3)
    found = kernel_distance(stream.normal(size=(1000, 4)) + 1, stream.normal(size=(30, 4)))
    assert found.low < found.value < found.high
    assert found.value > 0
