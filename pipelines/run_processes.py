"""The process of a Dagster run: which it is, and whether it still lives.

A run whose process was killed, or whose machine was switched off, cannot say so itself.
"""

import os
import socket
from dataclasses import dataclass

import dagster as dg
import psutil

# Of runs that the command line started: the machine, the process and when it began.
PROCESS_TAG = "gan_foundry/process"
CLOCK_SECONDS = 0.05  # between the clocks of the system's processes and of the event log


@dataclass(frozen=True)
class RunProcess:
    """A process of this machine.

    Attributes:
        number: The process's.
        latest_start: It began at this time at the latest, in seconds since 1970: a process with
            the same number that began later is another one.
    """

    number: int
    latest_start: float

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            process = psutil.Process(self.number)
            return (
                process.create_time() <= self.latest_start + CLOCK_SECONDS
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


def tag_of_this_process() -> str:
    """What a run of the command line is tagged with."""
    process = psutil.Process(os.getpid())
    return f"{socket.gethostname()} {process.pid} {process.create_time()!r}"


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunProcess | None:
    """The process of a run; None if it is not known, or of another machine.

    Runs of the command line are tagged with it. Of the others, Dagster notes the process's number
    in the event log when it has started.
    """
    tag = run.tags.get(PROCESS_TAG)
    if tag is not None:
        host, number, started = tag.split()
        return RunProcess(int(number), float(started)) if host == socket.gethostname() else None
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for entry in events:
        event = entry.dagster_event
        found = event.engine_event_data.metadata.get("pid") if event else None
        if found is not None:
            return RunProcess(int(str(found.value)), entry.timestamp)
    return None


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark as over every run whose process is gone: as canceled, if that was asked for."""
    unfinished = dg.RunsFilter(
        statuses=[
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
            dg.DagsterRunStatus.CANCELING,
        ]
    )
    for run in instance.get_runs(unfinished):
        process = process_of(instance, run)
        if process is None or process.alive:
            continue
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, "the process of this run is gone")
        else:
            instance.report_run_failed(run, "the process of this run was killed")
