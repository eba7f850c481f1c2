"""Settings that one run changes, as Dagster run configuration."""

from typing import Any

import dagster as dg
from pydantic import Field

from gan_core.config import PipelineSettings, apply_overrides
from gan_core.errors import FoundryError

RESOURCE_KEY = "overrides"
# Run configuration carries no place of this machine: those stand in the pipeline's own file.
NOT_IN_RUN_CONFIG = {"data.path", "data.archive", "data.sha256"}


class SettingsOverrides(dg.ConfigurableResource):
    """Dotted keys of the pipeline's settings with the values of this run."""

    values: dict[str, Any] = Field(
        default={}, description='Settings of this run alone, such as {"training.kimg": 20}.'
    )

    def apply(self, settings: PipelineSettings) -> PipelineSettings:
        """The settings of this run.

        Raises:
            FoundryError: A key is unknown or not allowed here, or a value is out of range.
        """
        for key in NOT_IN_RUN_CONFIG & set(self.values):
            raise FoundryError(
                f"{key} cannot be changed for one run; change it in the pipeline's defs.yaml."
            )
        return apply_overrides(settings, self.values, "the run's settings")


def run_config(overrides: dict[str, Any]) -> dict[str, Any]:
    """The run configuration that carries overrides."""
    return {"resources": {RESOURCE_KEY: {"config": {"values": overrides}}}}
