"""What must hold before a generator is released: pure functions of what was measured.

Each check is one sentence for people, with the values and the bounds that it compared.
"""

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from gan_core.evaluation_settings import CheckSettings


class CheckResult(BaseModel):
    """The outcome of a check.

    Attributes:
        name: `collapse`, `memorisation` or `broken_output`.
        passed: Whether all its bounds hold.
        message: One sentence: what is out of bounds, or what was looked at.
        values: What was compared, by name; None for what could not be measured.
        bounds: The bound of each, as text: "at least 0.5".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    passed: bool
    message: str
    values: dict[str, float | None]
    bounds: dict[str, str]


def run_checks(values: Mapping[str, float | None], settings: CheckSettings) -> list[CheckResult]:
    """All checks.

    Args:
        values: What was measured, by the names below; what is missing or None is not compared.
        settings: The bounds.
    """
    return [
        _check(
            "collapse",
            values,
            least={
                "class_coverage": settings.class_coverage_least,
                "recall_ratio": settings.recall_ratio_least,
                "intra_class_diversity": settings.diversity_least,
            },
            most={"class_kl": settings.class_kl_most},
        ),
        _check(
            "memorisation",
            values,
            least={"nearest_distance_ratio": settings.nearest_distance_ratio_least},
            most={"near_copy_share": settings.near_copy_share_most},
        ),
        _check(
            "broken_output",
            values,
            least={
                "precision_ratio": settings.precision_ratio_least,
                "contrast_ratio": settings.contrast_ratio_least,
            },
            most={
                "contrast_ratio": 1.0 / settings.contrast_ratio_least,
                "non_finite_share": 0.0,
                "out_of_range_share": 0.0,
                "constant_share": settings.constant_share_most,
            },
        ),
    ]


def _check(
    name: str,
    values: Mapping[str, float | None],
    least: Mapping[str, float],
    most: Mapping[str, float],
) -> CheckResult:
    bounds: dict[str, list[str]] = {}
    broken: list[str] = []
    for words, limits, sign in (("at least", least, 1), ("at most", most, -1)):
        for key, limit in limits.items():
            bounds.setdefault(key, []).append(f"{words} {limit:.4g}")
            value = values.get(key)
            # A number that is not one satisfies no bound.
            if value is not None and (math.isnan(value) or sign * (value - limit) < 0):
                broken.append(f"{key.replace('_', ' ')} is {value:.4g}, not {words} {limit:.4g}")
    compared = [key for key in bounds if values.get(key) is not None]
    named = ", ".join(key.replace("_", " ") for key in compared)
    return CheckResult(
        name=name,
        passed=not broken,
        message="; ".join(broken) or f"within bounds: {named or 'nothing could be measured'}",
        values={key: values.get(key) for key in bounds},
        bounds={key: " and ".join(texts) for key, texts in bounds.items()},
    )
