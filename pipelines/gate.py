"""The gate: whether a candidate takes the champion's place, and why, in one sentence."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gan_core.config import PipelineSettings

if TYPE_CHECKING:
    from gan_core.evaluation.comparison import Comparison
    from gan_core.evaluation.report import Evaluation


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a candidate.

    Attributes:
        passed: Whether it may be champion.
        reason: One sentence.
    """

    passed: bool
    reason: str


def refused_alone(evaluation: "Evaluation", settings: PipelineSettings) -> str | None:
    """Why a candidate may not be champion, whoever is; None if nothing speaks against it.

    The checks are read here again: Dagster's blocking checks stop a run, but a person may
    materialize the last stage alone.
    """
    failed = [check for check in evaluation.checks if not check.passed]
    if failed and settings.evaluation.checks.blocking:
        return "; ".join(f"{check.name} failed: {check.message}" for check in failed)
    most = settings.gate.distance_over_floor_most
    distance, floor = evaluation.frechet_distance, evaluation.floor
    if most is not None and not distance <= most * floor:
        return (
            f"its distance {distance:.2f} is above {most:g} times the floor of {floor:.2f} "
            "(gate.distance_over_floor_most)"
        )
    return None


def compare(comparison: "Comparison", champion: str, tolerance: float) -> Verdict:
    """Whether a candidate is better than the champion, or not worse within the tolerance.

    It is where the upper end of the difference's interval is at most `tolerance` times the
    champion's distance (a non-inferiority test; with a tolerance of 0, of superiority).

    Args:
        comparison: Both measured in one evaluation.
        champion: Its name, for the sentence.
        tolerance: From 0 to 1.
    """
    difference = comparison.difference
    margin = tolerance * comparison.champion.value
    passed = difference.high <= margin
    direction = "below" if difference.value < 0 else "above"
    measured = (
        f"its distance {comparison.candidate.value:.2f} is {abs(difference.value):.2f} {direction} "
        f"the {comparison.champion.value:.2f} of {champion} (difference {difference.text})"
    )
    if difference.high < 0:
        return Verdict(passed, f"{measured}: surely better")
    bound = f"{tolerance:.0%} of the champion's distance, {margin:.2f}"
    if passed:
        return Verdict(passed, f"{measured}: not worse by more than {bound}")
    return Verdict(passed, f"{measured}: it may be worse by more than {bound} (gate.tolerance)")
