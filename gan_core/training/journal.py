"""The journal: an append-only file with one JSON line an event, written by one training process.

Readers follow it while it grows. It is cut back to a checkpoint's length when training resumes
there, so every event stands in it once.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from gan_core.errors import FoundryError


class Journal:
    """The writing end.

    Args:
        path: The file; made if absent.
        length_bytes: Where the last checkpoint left it; what stands after that is cut off.

    Raises:
        FoundryError: It is shorter than that.
    """

    def __init__(self, path: Path, length_bytes: int) -> None:
        found = path.stat().st_size if path.exists() else 0
        if found < length_bytes:
            raise FoundryError(
                f"the journal {path} has {found} bytes, but its checkpoint counted {length_bytes}; "
                "remove the training's folder to train again from the start."
            )
        self._file = path.open("ab")
        self._file.truncate(length_bytes)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, event: str, **values: Any) -> None:
        """Append one line, which readers see at once."""
        self._file.write((json.dumps({"event": event, **values}) + "\n").encode())
        self._file.flush()

    def sync(self) -> int:
        """Make all lines durable, and return the file's length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)


class SilentJournal(Journal):
    """For processes that leave the writing to another."""

    def __init__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, event: str, **values: Any) -> None:
        pass

    def sync(self) -> int:
        return 0


def read_journal(path: Path, start_byte: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The complete lines from a byte on, each with the position that follows it.

    A line that is still being written is left for the next reading.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start_byte)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start_byte += len(line)
            yield start_byte, json.loads(line)
