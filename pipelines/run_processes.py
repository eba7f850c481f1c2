"""The process of a Dagster run: which it is, and whether it still lives.

A run whose process was killed, or whose machine was switched off, cannot say so itself.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil

# Of runs that the command line started: the machine, the process, its boot and when it began.
PROCESS_TAG = "gan_foundry/process"
# Of runs that passed the queue: the machine, its boot, and when that was by the wall clock.
MACHINE_TAG = "gan_foundry/machine"
CLOCK_SECONDS = 0.05  # between the clocks of the system's processes and of the event log
ZOMBIE = "Z"
BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class RunProcess:
    """A process of this machine.

    Times count from the machine's boot: the wall clock may be set while a run is under way.

    Attributes:
        number: The process's.
        boot: Which one, as the system names it; no process outlives it.
        latest_start: It began so many seconds after the boot at the latest: a process with the same
            number that began later is another one.
    """

    number: int
    boot: str
    latest_start: float

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            state, start = _state_and_start(self.number)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return (
            self.boot == _boot() and start <= self.latest_start + CLOCK_SECONDS and state != ZOMBIE
        )


def tag_of_this_process() -> str:
    """What a run of the command line is tagged with."""
    _, start = _state_and_start(os.getpid())
    return f"{socket.gethostname()} {os.getpid()} {_boot()} {start!r}"


def tag_of_this_machine() -> str:
    """What a run that passed the queue is tagged with before its process is started here."""
    return f"{socket.gethostname()} {_boot()} {psutil.boot_time()!r}"


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunProcess | None:
    """The process of a run; None if it is not known, or of another machine.

    Runs of the command line are tagged with it. Of the others, Dagster notes the process's number
    in the event log when it has started.
    """
    tag = run.tags.get(PROCESS_TAG)
    if tag is not None:
        return _tagged_process(tag)
    # Runs of older versions have no tag; they were all taken to be of this machine.
    host, boot, boot_time = run.tags.get(MACHINE_TAG, tag_of_this_machine()).split()
    if host != socket.gethostname():
        return None
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for entry in events:
        event = entry.dagster_event
        found = event.engine_event_data.metadata.get("pid") if event else None
        if found is not None:
            return RunProcess(int(str(found.value)), boot, entry.timestamp - float(boot_time))
    return None


def _tagged_process(tag: str) -> RunProcess | None:
    host, number, *began = tag.split()
    if host != socket.gethostname():
        return None
    if len(began) == 1:  # older versions tagged with the wall clock's time
        return RunProcess(int(number), _boot(), float(began[0]) - psutil.boot_time())
    boot, start = began
    return RunProcess(int(number), boot, float(start))


def _boot() -> str:
    """The name that the system gave to its latest boot."""
    return BOOT_FILE.read_text(encoding="utf-8").strip()


def _state_and_start(number: int) -> tuple[str, float]:
    """Of a process: the letter of its state, and seconds from the boot to its start."""
    # Its name comes before them, in brackets, and may hold brackets and spaces itself.
    fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    return fields[0].decode(), int(fields[19]) / os.sysconf("SC_CLK_TCK")


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
