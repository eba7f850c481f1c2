"""Runs code with a small disk of its own: a mount that nobody else sees and that ends with it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


def on_a_small_disk(code: str, folder: Path, size: str, *arguments: str | Path) -> str:
    """What a fresh process prints that has a disk of some size at a folder."""
    folder.mkdir()
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("a small disk is made with unshare")
    alone = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]
    done = subprocess.run(
        [*alone, size, folder, sys.executable, "-c", code, folder, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"this machine lends no mounts: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout
