"""Dagster's instance in the project's home: its databases are made by one process at a time."""

import contextlib
from collections.abc import Iterator

import dagster as dg
import filelock
import sqlalchemy as sa
from dagster._core.instance.ref import InstanceRef
from dagster_shared.check import CheckError

from gan_core.errors import FoundryError, first_line
from pipelines.home import home, prepare_home

LOCK_FILE = "instance.lock"


def make_databases() -> None:
    """Make Dagster's databases; two processes that open a fresh home at once would both fail.

    Raises:
        FoundryError: The home cannot be written, or Dagster's part of it cannot be used.
    """
    place = prepare_home()
    with filelock.FileLock(place / LOCK_FILE), instance_errors(), dg.DagsterInstance.get() as found:
        found.get_runs_count()


@contextlib.contextmanager
def instance_errors() -> Iterator[None]:
    """Turn what Dagster raises of a home that it cannot open into one sentence.

    Raises:
        FoundryError: Its `dagster.yaml` or a database cannot be used.
    """
    try:
        yield
    except (sa.exc.SQLAlchemyError, dg.DagsterError, CheckError, ImportError) as error:
        reason = first_line(error)
        raise FoundryError(
            f"Dagster cannot use DAGSTER_HOME {home()} ({reason}); correct its dagster.yaml, bring "
            "a copy of its databases back, or set DAGSTER_HOME to another folder."
        ) from error


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
