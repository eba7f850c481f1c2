"""Files on a disk that may be full, on a machine that may be switched off."""

import errno
import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; at every instant it is the old one, or absent, or the new one, whole.

    It is on the disk when this returns.

    Raises:
        OSError: The disk is full, for example; the file is as it was.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # make room again
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    _sync(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring all that a folder holds to the disk, where it outlasts the machine's end."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():
            _sync(path)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or one's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
