"""Dagster's instance in the project's home: its databases are made by one process at a time."""

import dagster as dg
import filelock
from dagster._core.instance.ref import InstanceRef

from pipelines.home import prepare_home

LOCK_FILE = "instance.lock"


def make_databases() -> None:
    """Make Dagster's databases; two processes that open a fresh home at once would both fail.

    Raises:
        FoundryError: The home cannot be written.
    """
    with filelock.FileLock(prepare_home() / LOCK_FILE), dg.DagsterInstance.get():
        pass


def open_quiet_instance() -> dg.DagsterInstance:
    """The home's instance, without a capture of what the process prints: the terminal shows it.

    The capture takes four processes, which answer Ctrl-C with tracebacks.
    """
    make_databases()
    nothing = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    reference = InstanceRef.from_dir(str(prepare_home()), overrides={"compute_logs": nothing})
    return dg.DagsterInstance.from_ref(reference)
