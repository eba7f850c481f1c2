"""One training at a time on this machine's device, however its run was started.

Dagster's pool makes runs wait in its queue; runs of the command line do not pass that queue. The
lock is the system's: it is free when its holder is dead.
"""

import contextlib
from collections.abc import Callable, Iterator

import filelock

from pipelines import home

LOCK_FILE = "device.lock"
POLL_SECONDS = 1.0


@contextlib.contextmanager
def device_to_oneself(on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the device while the block runs.

    Args:
        on_wait: Called once if another process has the device.
    """
    lock = filelock.FileLock(home.home() / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        on_wait()
        lock.acquire(poll_interval=POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
