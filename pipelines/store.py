"""The stages' folders: `<store>/<pipeline>/<stage>/<key>`.

A key is the hash of a stage's inputs and settings. A folder under its key is whole; work in
progress lies beside it as `<key>.partial`, guarded by a lock.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import filelock

from gan_core.disk import is_disk_full, sync_folder
from gan_core.errors import FoundryError


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage.

    Attributes:
        path: Where the finished folder lies, or will.
        working: Where to write; None if the folder is complete and there is nothing to do.
    """

    path: Path
    working: Path | None

    @property
    def reused(self) -> bool:
        """Whether the folder was complete already."""
        return self.working is None


def stage_path(store: Path, pipeline: str, stage: str, key: str) -> Path:
    """The finished folder of a stage, which may not exist yet."""
    return store / pipeline / stage / key


@contextlib.contextmanager
def open_stage(path: Path, *, resumable: bool = False) -> Iterator[StageFolder]:
    """Open a stage's folder for writing, or find it complete.

    On leaving the block without an error the working folder gets its final name. On an error it is
    removed, unless it is resumable. Another process in the same stage is waited for.

    Raises:
        FoundryError: The disk is full.
    """
    working = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(path.name + ".lock")):
        if path.exists():
            yield StageFolder(path, None)
            return
        if working.exists() and not resumable:
            shutil.rmtree(working)
        working.mkdir(exist_ok=True)
        try:
            yield StageFolder(path, working)
            sync_folder(working)
        except BaseException as error:
            if not resumable:
                shutil.rmtree(working, ignore_errors=True)
            if is_disk_full(error):
                raise FoundryError(describe_full_disk(path.parent)) from error
            raise
        working.rename(path)  # whole, also after a power cut: what it holds is on the disk


def is_forbidden(error: BaseException) -> TypeGuard[OSError]:
    """Whether an error names a file or folder that this user may not read or write."""
    forbidden = (errno.EACCES, errno.EPERM, errno.EROFS)
    return isinstance(error, OSError) and error.errno in forbidden and bool(error.filename)


def describe_forbidden(error: OSError) -> str:
    """One sentence about it."""
    return (
        f"{error.filename} cannot be read or written ({error.strerror}); let this user do so, or "
        "set DAGSTER_HOME to a folder of its own."
    )


def describe_full_disk(folder: Path) -> str:
    """One sentence that names the place and the remedy."""
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"the disk of {folder} is full ({free:.0f} MB free); free some space, or move "
        "DAGSTER_HOME to a larger disk, and run again."
    )
