"""One whole run of the shipped `digits` pipeline, which several end-to-end tests look at.

It trains on one core, since another test runs beside it.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import pytest

from tests.conftest import PROJECT
from tests.running_ui import GAN_FOUNDRY, free_port

# Ends what hangs; on a core without bf16 the digits were seen to take 609 s.
RUN_SECONDS = 1200


@dataclass(frozen=True)
class CommandResult:
    """What a program left when it ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)


def run_command(home: Path, *arguments: str, **environment: str) -> CommandResult:
    """Run `gan-foundry` in a process of its own, with a home of its own."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    result = subprocess.run(
        [GAN_FOUNDRY, *arguments],
        env={**clean, "DAGSTER_HOME": str(home), **environment},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    return CommandResult(result.returncode, result.stdout, result.stderr)


@dataclass(frozen=True)
class FinishedRun:
    """A home with the whole `digits` pipeline in it, and what the run printed."""

    home: Path
    result: CommandResult

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    # Test processes side by side share one run: the first makes it, the others wait for it.
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "finished_run"
    record = folder / "result.json"
    with filelock.FileLock(folder.with_suffix(".lock")):
        if not record.exists():
            arguments = ["run", "digits", "--set", "training.threads=1", "--json"]
            result = run_command(folder / "home", *arguments)
            assert result.status == 0, result.stderr
            record.write_text(json.dumps(asdict(result)))
    return FinishedRun(folder / "home", CommandResult(**json.loads(record.read_text())))


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    return free_port
