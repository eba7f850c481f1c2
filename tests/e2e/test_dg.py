"""Dagster's own command line works in the project as it does in any other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.home import prepare_home
from tests.conftest import PROJECT, subprocess_environment
from tests.e2e.test_digits import STAGES

pytestmark = pytest.mark.slow

DG = Path(sys.executable).with_name("dg")
PIPELINES = ["cifar10_20pct", "digits", "fashion_mnist", "mnist"]


@pytest.fixture(autouse=True)
def prepared_home(own_home: Path) -> Path:
    """A home with the project's instance settings, which keep telemetry off."""
    prepare_home()
    return own_home


def run_dg(*arguments: str) -> str:
    """Run `dg` in the project; returns its standard output."""
    result = subprocess.run(
        [DG, *arguments],
        env=subprocess_environment(),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_dg_check_finds_nothing_wrong_in_the_files() -> None:
    run_dg("check", "yaml")


def test_dg_lists_every_stage_of_every_pipeline() -> None:
    listed = json.loads(run_dg("list", "defs", "--json"))

    assert sorted(asset["asset_key"] for asset in listed["assets"]) == sorted(
        f"{pipeline}/{stage}" for pipeline in PIPELINES for stage in STAGES
    )
