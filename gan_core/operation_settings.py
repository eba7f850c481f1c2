"""Settings of how a pipeline is operated: none of them changes what is trained."""

import zoneinfo
from typing import Annotated

from pydantic import Field, field_validator

from .settings_base import Settings

OWNER = r"^(team:[\w ]+|[A-Za-z0-9_][A-Za-z0-9._%+-]*@[A-Za-z0-9.-]+\.[A-Za-z]{2,7})$"


class ScheduleSettings(Settings):
    """When the pipeline runs by itself; the schedule is switched on in Dagster's pages."""

    cron: str | None = Field(
        None, description='Five fields, such as `"0 3 * * 1"`: Mondays at 3:00; none by default.'
    )
    timezone: str = Field("UTC", description="Of `cron`: an IANA name, such as `Europe/Berlin`.")

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # the last: a folder of them
            raise ValueError(
                f"{name!r} is no time zone; use an IANA name, such as Europe/Berlin"
            ) from None
        return name


class OperationSettings(Settings):
    """How its runs wait, end and are looked after."""

    quiet_seconds: Annotated[float, Field(ge=0.0)] = Field(
        60.0, description="on_new_data: the folder has not changed for so long before a run starts."
    )
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(
        0, description="Of its runs in Dagster's queue: larger ones start first."
    )
    max_runtime_minutes: Annotated[float, Field(gt=0.0)] | None = Field(
        None,
        description="A run that Dagster's queue started and that takes longer is ended; none by "
        "default.",
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        1,
        description="How often a training that crashed, or a run whose process was killed, is "
        "started again; it goes on from its checkpoint.",
    )
    # A minute to a decade, and owners as Dagster takes them: it would load no pipeline at all.
    freshness_hours: Annotated[float, Field(ge=0.02, le=100_000.0)] | None = Field(
        None, description="The registered model is shown as overdue when it is older."
    )
    owners: tuple[Annotated[str, Field(pattern=OWNER)], ...] = Field(
        (), description="Shown on every asset: addresses such as `a@b.org`, or `team:name`."
    )
