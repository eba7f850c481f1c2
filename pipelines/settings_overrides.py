"""Settings that one run changes, as Dagster run configuration."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from gan_core.config import PipelineSettings, apply_overrides
from gan_core.errors import FoundryError

RESOURCE_KEY = "overrides"
# Run configuration carries no place of this machine: those stand in the pipeline's own file.
NOT_IN_RUN_CONFIG = {
    "data.path",
    "data.archive",
    "data.sha256",
    "feature_network.weights",
    "feature_network.weights_sha256",
}
# Dagster's run configuration has no null; no setting is the word itself.
NULL = "null"


def override_settings(settings: PipelineSettings, values: Mapping[str, Any]) -> PipelineSettings:
    """The settings of one run.

    Args:
        settings: The pipeline's.
        values: Dotted keys with what they are in this run; the word `null` stands for None.

    Raises:
        FoundryError: A key is unknown or not allowed here, or a value is out of range.
    """
    for key in sorted(NOT_IN_RUN_CONFIG & set(values)):
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
