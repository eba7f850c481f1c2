"""The gate's rule."""

import math

import pytest

from gan_core.config import PipelineSettings, apply_overrides
from gan_core.evaluation.comparison import Comparison
from gan_core.evaluation.estimate import Estimate
from pipelines.gate import compare, refused_alone
from tests.gan_core.evaluation_samples import around, make_card, make_evaluation

SETTINGS = PipelineSettings.model_validate({"data": {"source": "digits", "resolution": 16}})
NAME = "champion version 2"


def comparison(difference: float, high: float) -> Comparison:
    low = 2 * difference - high
    return Comparison(
        card=make_card(),
        candidate=around(4.0 + difference),
        champion=around(4.0),
        difference=Estimate(value=difference, low=low, high=high),
    )


@pytest.mark.parametrize(
    ("difference", "high", "tolerance", "passed"),
    [
        (-1.0, -0.5, 0.0, True),  # surely better
        (-0.5, 0.1, 0.0, False),  # perhaps better, but that is not sure
        (-0.5, 0.1, 0.1, True),  # not worse by more than 0.4
        (0.1, 0.39, 0.1, True),
        (0.1, 0.41, 0.1, False),
        (1.0, 1.5, 0.1, False),
        (math.nan, math.nan, 0.1, False),
    ],
)
def test_a_candidate_passes_that_is_better_or_not_worse_within_the_tolerance(
    difference: float, high: float, tolerance: float, passed: bool
) -> None:
    assert compare(comparison(difference, high), NAME, tolerance).passed is passed


def test_the_verdict_tells_both_numbers_the_interval_and_the_bound() -> None:
    assert compare(comparison(-1.0, -0.5), NAME, 0.1).reason == (
        "its distance 3.00 is 1.00 below the 4.00 of champion version 2 "
        "(difference -1 (-1.5 to -0.5)): surely better"
    )
    assert compare(comparison(0.1, 0.3), NAME, 0.1).reason.endswith(
        "not worse by more than 10% of the champion's distance, 0.40"
    )
    assert compare(comparison(0.1, 0.5), NAME, 0.1).reason.endswith(
        "it may be worse by more than 10% of the champion's distance, 0.40 (gate.tolerance)"
    )


def test_a_failed_check_refuses_unless_checks_do_not_block() -> None:
    assert refused_alone(make_evaluation(), SETTINGS) is None
    refusal = refused_alone(make_evaluation(passed=False), SETTINGS)
    assert refusal == "collapse failed: recall is 0.1, not at least 0.3"
    noted = apply_overrides(SETTINGS, {"evaluation.checks.blocking": False}, "test")
    assert refused_alone(make_evaluation(passed=False), noted) is None


@pytest.mark.parametrize(("distance", "refused"), [(6.7, False), (6.9, True), (math.nan, True)])
def test_a_distance_above_its_bound_refuses(distance: float, refused: bool) -> None:
    settings = apply_overrides(SETTINGS, {"gate.distance_over_floor_most": 2.0}, "test")
    sentence = refused_alone(make_evaluation(distance=distance), settings)
    assert (sentence is not None) is refused
    if distance == 6.9:
        assert sentence == (
            "its distance 6.90 is above 2 times the floor of 3.40 (gate.distance_over_floor_most)"
        )
