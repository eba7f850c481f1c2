"""Settings of `gan-foundry sweep`: which settings are tried, and how one trial is run."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from .settings_base import Fraction, Settings

SWEPT_SECTIONS = ("network.", "training.")
# The same in all trials: what they cost, what they are measured with, and what the machine decides.
NOT_SWEPT = {
    "training.kimg",
    "training.seed",
    "training.start_from",
    "training.precision",
    "training.device",
    "training.threads",
    "training.launcher",
    "training.processes",
    "training.accumulation_steps",
    "training.logging_interval_kimg",
    "training.grid_interval_kimg",
    "training.checkpoint_interval_seconds",
}
NOT_SWEPT_SECTIONS = ("training.monitoring.", "training.alarms.")


class SweepParameter(Settings):
    """The values of one setting that are tried: a range of numbers, or choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    also: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_a_range_or_choices(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("has choices and a range (low, high, log); leave one of them out")
            if len(self.choices) < 2:
                raise ValueError(f"has choices {list(self.choices)}, but it needs two at least")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"has low {self.low:g} and high {self.high:g}; low must be less")
        if self.log and self.low <= 0:
            raise ValueError(
                f"has low {self.low:g}, which has no logarithm; make it greater than 0, or take "
                "log: false"
            )
        return self


class SweepSettings(Settings):
    """What `gan-foundry sweep` tries; nothing else reads it. See docs/sweeps.md."""

    parameters: dict[str, SweepParameter] = Field(
        {},
        description="By key of `network` or `training`: `low`, `high` and `log`, or `choices`; "
        "`also` names settings that take the same value. By default the learning rates, penalty "
        "weights and the average's half-life around what the pipeline has.",
    )
    kimg: Annotated[float, Field(gt=0.0, le=1e6)] | None = Field(
        None, description="Budget of one trial; by default `training.kimg`."
    )
    evaluations: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="The distance is measured so many times in a trial."
    )
    pruning_start: Fraction = Field(
        0.3,
        description="Share of a trial's budget before which it is never given up; 1 never does.",
    )
    sampler_seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Seed of the choice of values; that of the trainings is `training.seed`."
    )

    @field_validator("parameters", mode="before")
    @classmethod
    def _mistakes_name_their_parameter(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {key: _parse_parameter(str(key), value) for key, value in values.items()}

    @model_validator(mode="after")
    def _each_setting_is_swept_once(self) -> Self:
        keys = self.swept_keys
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"parameters name {key} twice; leave one out")
        return self

    @property
    def swept_keys(self) -> list[str]:
        """Every dotted key that a trial may change."""
        return [key for name, values in self.parameters.items() for key in (name, *values.also)]


def is_sweepable(key: str) -> bool:
    """Whether trials that differ in this setting can still be compared with each other."""
    return (
        key.startswith(SWEPT_SECTIONS)
        and key not in NOT_SWEPT
        and not key.startswith(NOT_SWEPT_SECTIONS)
    )


def _parse_parameter(key: str, value: Any) -> SweepParameter:
    """One parameter; what is wrong with it is said with its key, which has dots of its own."""
    if not isinstance(value, Mapping | SweepParameter):
        message = f"{key} is {value!r}, but it must be a mapping with low and high, or choices"
        raise ValueError(message)  # noqa: TRY004  # what pydantic makes a problem of
    try:
        return SweepParameter.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        known = ", ".join(SweepParameter.model_fields)
        raise ValueError(f"{key} has {first['loc'][0]}, which is not known; allowed are {known}")
    if first["type"] == "value_error":
        raise ValueError(f"{key} {first['ctx']['error']}")
    remedy = first["msg"].replace("Input should", "it must", 1)
    raise ValueError(f"{key} has {first['loc'][0]} {first['input']!r}, but {remedy}")
