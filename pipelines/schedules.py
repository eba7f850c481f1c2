"""The schedule of a pipeline."""

from typing import Any

import dagster as dg

from gan_core.errors import FoundryError
from gan_core.operation_settings import ScheduleSettings


def build_schedule(name: str, settings: ScheduleSettings, job: Any) -> dg.ScheduleDefinition:
    """The schedule `<name>_schedule`, switched off until somebody switches it on.

    Args:
        name: The pipeline's.
        settings: With `cron`.
        job: What it runs.

    Raises:
        FoundryError: `schedule.cron` is no cron expression.
    """
    try:
        return dg.ScheduleDefinition(
            name=f"{name}_schedule",
            job=job,
            cron_schedule=str(settings.cron),
            execution_timezone=settings.timezone,
            description=f"Runs {name} at `{settings.cron}`, {settings.timezone}. Unchanged stages "
            "are skipped.",
        )
    except dg.DagsterInvalidDefinitionError:
        raise FoundryError(
            f"pipelines/defs/{name}/defs.yaml: schedule.cron is {settings.cron!r}, but it must "
            'have five fields (minute, hour, day, month, weekday), such as "0 3 * * 1".'
        ) from None
