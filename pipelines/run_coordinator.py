"""Dagster's queue of runs, in which every run gets what its pipeline's file says of it.

Tags of a job reach only runs of that job; what people materialize from the asset graph passes here,
too.
"""

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster._core.run_coordinator.base import SubmitRunContext
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster._core.storage.tags import (
    MAX_RETRIES_TAG,
    MAX_RUNTIME_SECONDS_TAG,
    PRIORITY_TAG,
)

from gan_core.operation_settings import OperationSettings
from pipelines.pipeline_files import load_pipeline, pipeline_files


class PipelineRunCoordinator(QueuedRunCoordinator):
    """Queues runs with the priority, longest time and retries of their pipelines."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Put a run into the queue.

        Raises:
            FoundryError: The file of its pipeline has a mistake.
        """
        run = context.dagster_run
        names = pipelines_of(run) & set(pipeline_files())
        wanted = run_tags(load_pipeline(name).operation for name in sorted(names))
        missing = {key: value for key, value in wanted.items() if key not in run.tags}
        if missing:
            self._instance.add_run_tags(run.run_id, missing)
        return super().submit_run(context)


def pipelines_of(run: dg.DagsterRun) -> set[str]:
    """The pipelines whose assets a run materializes."""
    keys = run.asset_selection or ()
    return {key.path[0] for key in keys} or {run.job_name}


def run_tags(operations: Iterable[OperationSettings]) -> Mapping[str, str]:
    """The tags of a run of some pipelines: the highest priority, the longest time, most retries."""
    settings = list(operations)
    if not settings:
        return {}
    minutes = [one.max_runtime_minutes for one in settings]
    limits = [value for value in minutes if value is not None]
    return {
        PRIORITY_TAG: str(max(one.priority for one in settings)),
        MAX_RETRIES_TAG: str(max(one.retries for one in settings)),
        # Without a limit of one of them, the whole has none.
        **(
            {MAX_RUNTIME_SECONDS_TAG: f"{60 * sum(limits):.0f}"}
            if len(limits) == len(settings)
            else {}
        ),
    }
