"""Files that are whole, whatever happens while they are written."""

import errno
import os
from pathlib import Path

import pytest

from gan_core.disk import is_disk_full, write_whole


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_on_a_full_disk_the_file_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "job.json"
    write_whole(path, b"first")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, b"second")
    assert is_disk_full(caught.value)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_are_no_full_disk() -> None:
    assert not is_disk_full(FileNotFoundError(errno.ENOENT, "lost"))
    assert not is_disk_full(ValueError(errno.ENOSPC))
