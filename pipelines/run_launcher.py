"""Dagster's launcher of runs on this machine, which also knows when the process of a run is gone.

Dagster's own monitoring asks it, ends what is dead, and starts it again as the settings say.
"""

import os
import signal
import time

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.tags import MAX_RETRIES_TAG, MAX_RUNTIME_SECONDS_TAG

from pipelines.run_processes import MACHINE_TAG, process_of, tag_of_this_machine


class LocalRunLauncher(DefaultRunLauncher):
    """Launches runs as Dagster does by default, and looks after their processes."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run, and note on which machine."""
        # Before it starts: its number alone would be looked for on whichever machine asks.
        tag = {MACHINE_TAG: tag_of_this_machine()}
        self._instance.add_run_tags(context.dagster_run.run_id, tag)
        super().launch_run(context)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether `check_run_worker_health` can be asked."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run lives; one that is not known is taken to."""
        process = process_of(self._instance, run)
        if process is None or process.alive:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND,
            f"process {process.number} of the run is gone: it was killed, or the machine was "
            "switched off",
        )

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end; one that outlived its `max_runtime_minutes` is not started again.

        A run that Dagster's server of the code does not know (of the command line, or when that
        server was killed) gets the signal of Ctrl-C.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if self._is_overdue(run):
            self._instance.add_run_tags(run_id, {MAX_RETRIES_TAG: "0"})
        try:
            if super().terminate(run_id):
                return True
        except DagsterUserCodeUnreachableError as error:
            self._instance.report_engine_event(f"the code server is gone: {error}", run)
        process = process_of(self._instance, run)
        if process is None or not process.alive:
            return False
        os.kill(process.number, signal.SIGINT)
        return True

    def _is_overdue(self, run: dg.DagsterRun) -> bool:
        most_seconds = run.tags.get(MAX_RUNTIME_SECONDS_TAG)
        record = self._instance.get_run_record_by_id(run.run_id)
        if most_seconds is None or record is None or record.start_time is None:
            return False
        return time.time() - record.start_time > float(most_seconds)
