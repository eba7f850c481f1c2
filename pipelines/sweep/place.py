"""Where a sweep lies, and that one process at a time is at it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from gan_core.errors import FoundryError
from pipelines import home

LOCK_FILE = "sweep.lock"


def sweeps_folder(pipeline: str) -> Path:
    """The folder of a pipeline's sweeps, each in one of its own, named by its key."""
    return home.home() / "sweeps" / pipeline


@contextlib.contextmanager
def alone(folder: Path, pipeline: str) -> Iterator[None]:
    """Keep a sweep's folder, which is made, to this process.

    Raises:
        FoundryError: Another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=1)  # who only asks has it for a moment
    except filelock.Timeout:
        raise FoundryError(
            f"the sweep {folder.name} of {pipeline} is under way in another process; wait for it "
            "or stop it."
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_under_way(pipeline: str) -> bool:
    """Whether a process is at one of a pipeline's sweeps."""
    for lock in sorted(sweeps_folder(pipeline).glob(f"*/{LOCK_FILE}")):
        try:
            with filelock.FileLock(lock, timeout=0):
                pass
        except filelock.Timeout:
            return True
    return False
