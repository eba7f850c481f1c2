"""Threads that wait give their core away: what PyTorch's OpenMP says it has read."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gan_core.idle_threads import SPINS
from gan_core.training.job import TrainingJob
from tests.conftest import subprocess_environment

MakeJob = Callable[..., TrainingJob]

HERE = "import gan_core.idle_threads as i; i.let_idle_threads_sleep(); import torch"
STEPS = "import pipelines.step_server, torch"
COMMAND_LINE = """
from pipelines.command import main

try:
    main()
except SystemExit:
    import torch
"""


def spins(command: list[str | Path], **variables: str) -> set[str]:
    """How often threads of a program spin, by all of OpenMP's libraries that it loads."""
    environment = subprocess_environment(OMP_DISPLAY_ENV="VERBOSE", **variables)
    for name in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} - set(variables):
        environment.pop(name, None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr))


@pytest.mark.parametrize("program", [HERE, STEPS, COMMAND_LINE])
def test_threads_that_wait_soon_sleep(program: str) -> None:
    assert spins([sys.executable, "-c", program, "--help"]) == {SPINS}


@pytest.mark.parametrize("launcher", ["process", "torchrun"])
def test_so_do_those_of_a_training(launcher: str, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(kimg=0.1, launcher=launcher).write(tmp_path)
    assert spins([sys.executable, "-m", "gan_core.training", tmp_path]) == {SPINS}


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [("GOMP_SPINCOUNT", "77", "77"), ("OMP_WAIT_POLICY", "passive", "0")],
)
def test_the_choice_of_the_environment_stays(variable: str, value: str, expected: str) -> None:
    assert spins([sys.executable, "-c", HERE], **{variable: value}) == {expected}
