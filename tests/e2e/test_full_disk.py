"""A disk that is full: one sentence, nothing half-written, and the next run goes on."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import CommandResult, run_command

pytestmark = pytest.mark.slow

SHORT = [
    *("--set", "training.kimg=2"),
    *("--set", "training.threads=1"),  # another test runs beside this one
    *("--set", "feature_network.epochs=1"),
    *("--set", "evaluation.checks.blocking=false"),
]


@pytest.fixture
def small_disk(own_home: Path) -> Iterator[Callable[[str], None]]:
    """Puts the store onto a disk of its own, and gives the function that changes its size."""
    store = own_home / "store"
    store.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", store]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield lambda size: subprocess.run(
        ["mount", "-o", f"remount,size={size}", store], check=True
    ).check_returncode()
    subprocess.run(["umount", store], check=True)


def assert_one_sentence(result: CommandResult, stage: str) -> None:
    assert result.status == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: digits/{stage}: the disk of ")
    assert "is full" in last
    assert "free some space" in last


def test_a_full_disk_is_one_sentence_and_the_next_run_goes_on(
    small_disk: Callable[[str], None], own_home: Path
) -> None:
    assert_one_sentence(run_command(own_home, "run", "digits", *SHORT), "training_images")
    assert list(own_home.glob("store/digits/training_images/*/*")) == []

    small_disk("2m")
    assert_one_sentence(run_command(own_home, "run", "digits", *SHORT), "generator")
    assert list(own_home.glob("store/digits/generator/*/*.tmp")) == []

    small_disk("100m")
    assert run_command(own_home, "run", "digits", *SHORT, "--json").json["alias"] == "champion"
