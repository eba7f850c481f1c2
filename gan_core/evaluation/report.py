"""What an evaluation found: numbers with their intervals and cards, and the checks' outcome.

Reading one needs no PyTorch; measuring one is `evaluator.py`.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from gan_core.evaluation.card import MetricCard
from gan_core.evaluation.checks import CheckResult
from gan_core.evaluation.estimate import Estimate

EVALUATION_FILE = "evaluation.json"
PAGE_FILE = "evaluation.html"  # for people


class SpaceScores(BaseModel):
    """What a set of images scores in one feature space.

    Attributes:
        card: What the numbers depend on.
        metrics: By name: `frechet_distance` and `kid`; in the deciding space also `precision`,
            `recall`, `density` and `coverage`; with a network that tells classes apart
            `inception_score`; with a classifier of these images `class_coverage` and `class_kl`.
        floor: The same of real training images in the place of the generated ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    card: MetricCard
    metrics: dict[str, Estimate]
    floor: dict[str, Estimate]

    def value(self, metric: str) -> float | None:
        """A metric's value; None if this space has none."""
        found = self.metrics.get(metric)
        return None if found is None else found.value

    def over_floor(self, metric: str) -> float | None:
        """A metric's value as a share of the floor's; None if there is none or it is 0."""
        value, floor = self.value(metric), self.floor.get(metric)
        return None if value is None or floor is None or not floor.value else value / floor.value


class CurvePoint(BaseModel):
    """The Fréchet distance at a sample count."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    samples: int
    frechet_distance: float


class ClassRow(BaseModel):
    """What was measured of one class.

    Attributes:
        name: The class.
        share: Of the samples that the classifier puts here.
        real_share: Of the held-out images.
        agreement: Share of the samples asked for here that the classifier puts here; None for an
            unconditional generator.
        diversity: Pixel distance between samples here, as a share of that between real images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    share: float
    real_share: float
    agreement: float | None
    diversity: float | None


class NearestPair(BaseModel):
    """A sample and its nearest training image.

    Attributes:
        sample: Index of the sample.
        training_image: Row of the training image.
        distance: Euclidean, over pixels from 0 to 255.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: int
    training_image: int
    distance: float


class Evaluation(BaseModel):
    """The measured quality of a set of generated images.

    Attributes:
        gate: In the space that decides.
        second: In a space blind to the classes.
        curve: The deciding distance at several sample counts, whose bias falls with the count.
        extrapolated: That distance without the bias.
        floor_extrapolated: The same of the floor.
        images: Measured on the pixels: `intra_class_diversity`, `nearest_distance_ratio`,
            `near_copy_share`, `contrast_ratio`, `constant_share`; of a generator also
            `non_finite_share` and `out_of_range_share`; with labels `label_agreement`.
        classes: A row for each class, where a classifier tells them apart.
        nearest_pairs: The samples that are nearest to training images, nearest first.
        checks: Whether it may be released.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    gate: SpaceScores
    second: SpaceScores
    curve: tuple[CurvePoint, ...]
    extrapolated: float
    floor_extrapolated: float
    images: dict[str, Estimate]
    classes: tuple[ClassRow, ...]
    nearest_pairs: tuple[NearestPair, ...]
    checks: tuple[CheckResult, ...]

    @property
    def card(self) -> MetricCard:
        """What the deciding numbers depend on."""
        return self.gate.card

    @property
    def frechet_distance(self) -> float:
        """In the space that decides."""
        return self.gate.metrics["frechet_distance"].value

    @property
    def floor(self) -> float:
        """The distance of real training images in the place of the samples."""
        return self.gate.floor["frechet_distance"].value

    @property
    def class_coverage(self) -> float | None:
        """Share of the classes that the samples show; None without classes."""
        return self.gate.value("class_coverage")

    @property
    def class_shares(self) -> dict[str, float]:
        """Share of the samples in each class; empty without classes."""
        return {row.name: row.share for row in self.classes}

    @property
    def label_agreement(self) -> float | None:
        """Share of samples in the class they were asked for; None where none was asked for."""
        found = self.images.get("label_agreement")
        return None if found is None else found.value

    @property
    def sentence(self) -> str:
        """The whole in one sentence."""
        failed = [check.name.replace("_", " ") for check in self.checks if not check.passed]
        outcome = f"the checks of {', '.join(failed)} fail" if failed else "every check holds"
        return (
            f"The Fréchet distance is {self.gate.metrics['frechet_distance'].text} in "
            f"{self.card.feature_network}, where real training images reach {self.floor:.3g}; "
            f"{outcome}."
        )

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    def estimates(self) -> dict[str, Estimate]:
        """Every number by a name of its own; those of the second space begin with `second_`."""
        floor = {"floor": self.gate.floor["frechet_distance"]}
        second = {f"second_{name}": found for name, found in self.second.metrics.items()}
        second["second_floor"] = self.second.floor["frechet_distance"]
        return {**self.gate.metrics, **floor, **self.images, **second}

    def number_rows(self) -> Iterable[dict[str, str]]:
        """Every number, as text: name, value, interval and what real training images reach."""
        groups: tuple[tuple[str, Mapping[str, Estimate], Mapping[str, Estimate]], ...] = (
            ("", self.gate.metrics, self.gate.floor),
            ("", self.images, {}),
            ("second space: ", self.second.metrics, self.second.floor),
        )
        for prefix, found, floor in groups:
            for name, number in found.items():
                exact = number.low == number.value == number.high
                yield {
                    "name": prefix + name.replace("_", " "),
                    "value": _text(number.value),
                    "interval": "" if exact else f"{_text(number.low)} to {_text(number.high)}",
                    "floor": _text(floor[name].value) if name in floor else "",
                }

    def summary(self) -> dict[str, Any]:
        """The evaluation as plain values for programs: each number with `<name>_ci` beside it.

        Numbers that JSON does not know, such as infinity, are None.
        """
        found: dict[str, Any] = {}
        for name, number in self.estimates().items():
            found[name] = _plain(number.value)
            found[f"{name}_ci"] = [_plain(number.low), _plain(number.high)]
        return {
            "class_coverage": None,
            "label_agreement": None,
            **found,
            "frechet_distance_extrapolated": self.extrapolated,
            "class_shares": self.class_shares,
            "passed": self.passed,
            "checks": [check.model_dump() for check in self.checks],
            "card": {**self.card.model_dump(), "line": self.card.line},
            "second_card": {**self.second.card.model_dump(), "line": self.second.card.line},
        }

    def write(self, folder: Path) -> None:
        """Put the evaluation into a folder."""
        (folder / EVALUATION_FILE).write_text(self.model_dump_json(indent=2), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Evaluation":
        """The evaluation in a folder."""
        return cls.model_validate_json((folder / EVALUATION_FILE).read_text(encoding="utf-8"))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"
