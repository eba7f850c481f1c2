"""What Dagster remembers of a stage: the data version of a materialization names its folder."""

import dagster as dg


def data_version(event: dg.EventLogEntry | dg.EventLogRecord | None) -> str:
    """The data version that an event records; empty if it records none."""
    materialization = event.asset_materialization if event else None
    return ((materialization.tags if materialization else None) or {}).get(
        "dagster/data_version", ""
    )
