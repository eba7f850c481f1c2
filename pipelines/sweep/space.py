"""The search space of a sweep: from settings to Optuna's distributions, and back to settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from gan_core.config import PipelineSettings, apply_overrides, flat_settings
from gan_core.errors import FoundryError
from gan_core.sweep_settings import SweepParameter

ORIGIN = "sweep.parameters"
SIGNIFICANT_DIGITS = 3  # a recipe is read by people
# Settings that move together where the pipeline has the same value for them, how many times that
# value the range goes down and up, and what they may be at most.
DEFAULT_SPACE = (
    (("training.generator_learning_rate", "training.discriminator_learning_rate"), 4.0, 1.0),
    (("training.r1_gamma", "training.r2_gamma"), 10.0, None),
    (("training.wgan_gp_weight",), 10.0, None),
    (("training.ema_halflife_kimg",), 4.0, None),
)


@dataclass(frozen=True)
class Dimension:
    """One parameter of a sweep.

    Attributes:
        keys: The settings that take its value; the first names it.
        own: What the pipeline has.
        parameter: The values that are tried; choices as the settings have them.
    """

    keys: tuple[str, ...]
    own: Any
    parameter: SweepParameter

    @property
    def name(self) -> str:
        """In the study."""
        return self.keys[0]

    @property
    def distribution(self) -> BaseDistribution:
        """Optuna's."""
        values = self.parameter
        if values.choices is not None:
            return CategoricalDistribution([_plain(choice) for choice in values.choices])
        assert values.low is not None  # noqa: S101  # of a range
        assert values.high is not None  # noqa: S101
        if isinstance(self.own, int):
            return IntDistribution(int(values.low), int(values.high), log=values.log)
        return FloatDistribution(values.low, values.high, log=values.log)

    def value(self, suggested: Any) -> Any:
        """The setting's value for what Optuna suggests."""
        if self.parameter.choices is not None:
            return next(choice for choice in self.parameter.choices if _plain(choice) == suggested)
        if not isinstance(suggested, float) or suggested == self.own:
            return suggested
        rounded = float(f"{suggested:.{SIGNIFICANT_DIGITS}g}")
        assert self.parameter.low is not None  # noqa: S101
        assert self.parameter.high is not None  # noqa: S101
        return min(max(rounded, self.parameter.low), self.parameter.high)


@dataclass(frozen=True)
class SearchSpace:
    """All parameters of a sweep."""

    dimensions: tuple[Dimension, ...]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's, by name."""
        return {dimension.name: dimension.distribution for dimension in self.dimensions}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def own_parameters(self) -> dict[str, Any]:
        """What Optuna would have to suggest to get the pipeline's own settings."""
        return {dimension.name: _plain(dimension.own) for dimension in self.dimensions}

    def values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The dotted keys and values of settings for what Optuna suggested."""
        return {
            key: dimension.value(parameters[dimension.name])
            for dimension in self.dimensions
            for key in dimension.keys
        }


def search_space(settings: PipelineSettings) -> SearchSpace:
    """The space that the settings describe, or the default one around them.

    Raises:
        FoundryError: A value cannot be set in this pipeline, or the pipeline's own value, which is
            the first trial, is not in the space.
    """
    parameters = settings.sweep.parameters or _default_parameters(settings)
    return SearchSpace(
        tuple(_dimension(settings, key, values) for key, values in parameters.items())
    )


def trial_settings(settings: PipelineSettings, values: Mapping[str, Any]) -> PipelineSettings:
    """The settings of one trial: the sweep's budget and intervals, and the values it tries.

    Raises:
        FoundryError: These values do not go together.
    """
    sweep = settings.sweep
    kimg = sweep.kimg or settings.training.kimg
    course = {
        "training.kimg": kimg,
        "training.monitoring.interval_kimg": kimg / sweep.evaluations,
        "training.monitoring.patience_evaluations": 0,  # giving up is the pruner's
        "training.grid_interval_kimg": kimg,
    }
    return apply_overrides(settings, {**course, **values}, "a trial's settings")


def _default_parameters(settings: PipelineSettings) -> dict[str, SweepParameter]:
    own = flat_settings(settings)
    found = {}
    for keys, factor, most in DEFAULT_SPACE:
        together = len({own[key] for key in keys}) == 1
        for key in keys[:1] if together else keys:
            if own[key] > 0:
                high = own[key] * factor if most is None else min(own[key] * factor, most)
                found[key] = SweepParameter(
                    low=own[key] / factor, high=high, log=True, also=keys[1:] if together else ()
                )
    return found


def _dimension(settings: PipelineSettings, key: str, parameter: SweepParameter) -> Dimension:
    keys = (key, *parameter.also)
    own = flat_settings(settings)[key]
    if parameter.choices is None:
        assert parameter.low is not None  # noqa: S101
        assert parameter.high is not None  # noqa: S101
        if isinstance(own, bool) or not isinstance(own, int | float):
            raise FoundryError(
                f"{ORIGIN}: {key} is {own!r}, which is no number; give choices instead of low and "
                "high."
            )
        for end in (parameter.low, parameter.high):
            _read_back(settings, keys, end)
        contained = parameter.low <= own <= parameter.high
        shown = f"{parameter.low:g} to {parameter.high:g}"
    else:
        choices = tuple(_read_back(settings, keys, choice) for choice in parameter.choices)
        parameter = parameter.model_copy(update={"choices": choices})
        contained = own in choices
        shown = ", ".join(map(str, choices))
    if not contained:
        raise FoundryError(
            f"{ORIGIN}: {key} is {own} in this pipeline, whose own settings are the first trial, "
            f"but only {shown} is tried; add {own}."
        )
    for name in parameter.also:
        if (value := flat_settings(settings)[name]) != own:
            raise FoundryError(
                f"{ORIGIN}: {name} is {value} in this pipeline and {key} is {own}, so they cannot "
                "move together from there; make them alike, or leave it out of also."
            )
    return Dimension(keys, own, parameter)


def _read_back(settings: PipelineSettings, keys: tuple[str, ...], value: Any) -> Any:
    """The value as the settings have it, where it is allowed."""
    changed = trial_settings(settings, dict.fromkeys(keys, value))
    return flat_settings(changed)[keys[0]]


def _plain(choice: Any) -> Any:
    """A choice as Optuna stores it: scalars themselves, lists as text."""
    return json.dumps(choice) if isinstance(choice, list | tuple) else choice
