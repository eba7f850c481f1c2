import numpy as np
import pytest

from gan_core.evaluation.estimate import (
    Estimate,
    count_matrix,
    estimate,
    mean_estimate,
)


def test_the_interval_of_a_share_holds_the_truth_nineteen_times_in_twenty() -> None:
    stream = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        found = mean_estimate(stream.random(400) < 0.3)
        held += found.low <= 0.3 <= found.high
    assert 180 <= held <= 198


def test_replicates_are_centred_on_the_value() -> None:
    found = estimate(2.0, np.linspace(3.0, 5.0, 1001))
    assert (found.low, found.value, found.high) == pytest.approx((1.05, 2.0, 2.95))


def test_an_interval_is_cut_at_what_is_possible_and_holds_the_value() -> None:
    assert estimate(0.1, np.linspace(-1, 1, 101), least=0.0).low == 0.0
    assert estimate(1.0, np.array([0.2] * 99 + [0.1]), least=0, most=1).high == 1.0
    skewed = estimate(0.5, np.array([0.0] * 99 + [100.0]))
    assert skewed.low <= 0.5 <= skewed.high


def test_the_same_arguments_resample_in_the_same_way() -> None:
    first, second = count_matrix(50, seed=3, replicates=7), count_matrix(50, 3, 7)
    assert np.array_equal(first, second)
    assert (first.sum(1) == 50).all()
    assert not np.array_equal(first, count_matrix(50, 4, 7))
    assert not first.flags.writeable


@pytest.mark.parametrize(
    ("value", "text"), [(1.27, "1.27 (1.1 to 1.45)"), (123.4, "123.4 (1.1 to 1.45)")]
)
def test_an_estimate_reads_as_a_number_with_its_interval(value: float, text: str) -> None:
    assert Estimate(value=value, low=1.1, high=1.45).text == text
