"""Settings that one run changes, as Dagster run configuration."""

from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from gan_core.config import PipelineSettings, apply_overrides
from gan_core.errors import FoundryError
from gan_core.settings_base import Settings

RESOURCE_KEY = "overrides"
# Dagster's run configuration has no null; no setting is the word itself.
NULL = "null"


def _takes_text(annotation: Any) -> bool:
    """Whether a value of this type may be text that is not one of a few given words."""
    if get_origin(annotation) is Literal or annotation in (bool, int, float, None, NoneType):
        return False
    inner = [item for item in get_args(annotation) if not isinstance(item, FieldInfo)]
    return not inner or any(_takes_text(item) for item in inner if item is not Ellipsis)


def keys_of_text(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of settings that take any text."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from keys_of_text(field.annotation, f"{prefix}{name}.")
        elif _takes_text(field.annotation):
            yield prefix + name


# Whoever launches a run cannot name a path, address, module or command in it: only numbers and the
# words that a setting lists. All other settings stand in the pipeline's own file, and so does what
# people are told of: nobody runs in silence.
NOT_IN_RUN_CONFIG = frozenset(keys_of_text(PipelineSettings)) | {"notifications.events"}
# Dagster has read these when the run begins, or no run reads them: they would change nothing.
NOT_OF_A_RUN = ("operation.", "schedule.", "sweep.")


def override_settings(settings: PipelineSettings, values: Mapping[str, Any]) -> PipelineSettings:
    """The settings of one run.

    Args:
        settings: The pipeline's.
        values: Dotted keys with what they are in this run; the word `null` stands for None.

    Raises:
        FoundryError: A key is unknown or not allowed here, or a value is out of range.
    """
    fixed = {key for key in values if key.startswith(NOT_OF_A_RUN)}
    for key in sorted(fixed | NOT_IN_RUN_CONFIG & set(values)):
        raise FoundryError(
            f"{key} cannot be changed for one run; change it in the pipeline's defs.yaml."
        )
    plain = {key: None if value == NULL else value for key, value in values.items()}
    return apply_overrides(settings, plain, "the run's settings")


class SettingsOverrides(dg.ConfigurableResource):
    """Dotted keys of the pipeline's settings with the values of this run."""

    values: dict[str, Any] = Field(
        default={}, description='Settings of this run alone, such as {"training.kimg": 20}.'
    )

    def apply(self, settings: PipelineSettings) -> PipelineSettings:
        """The settings of this run; see `override_settings`."""
        return override_settings(settings, self.values)


def run_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The run configuration that carries settings."""
    plain = {key: NULL if value is None else value for key, value in values.items()}
    return {"resources": {RESOURCE_KEY: {"config": {"values": plain}}}}
