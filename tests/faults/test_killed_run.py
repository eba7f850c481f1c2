"""Whole runs that are killed, interrupted, or started side by side."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from tests.faults.runs import (
    KIMG,
    StartedRun,
    StartRun,
    images_at_checkpoint,
    released_weights,
    trainers,
)
from tests.gan_core.trainings import wait_until

pytestmark = pytest.mark.slow

SECONDS_FOR_A_CHECKPOINT = 5.0
LONG_FORM = pytest.mark.skipif(
    os.environ.get("GAN_FOUNDRY_FAULTS") != "long", reason="left to `make faults`"
)


@pytest.fixture
def start_run(own_home: Path, tmp_path: Path) -> Iterator[StartRun]:
    """Starts runs, by default in the test's own home; what is left of them ends with the test."""
    started: list[StartedRun] = []

    def start(*arguments: str, home: Path = own_home) -> StartedRun:
        output = tmp_path / f"run {len(started)}.txt"
        started.append(StartedRun(home, output, *arguments))
        return started[-1]

    yield start
    for run in started:
        run.end()


def no_trainer_is_left(home: Path) -> bool:
    return trainers(home) == []


def is_child(process: psutil.Process, run: StartedRun) -> bool:
    try:
        return process.ppid() == run.process.pid
    except psutil.NoSuchProcess:
        return True  # it has ended, and the waiting too


def run_statuses(home: Path) -> list[dg.DagsterRunStatus]:
    """Of the runs of a home, the oldest first."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        records = instance.get_run_records(ascending=True)
    return [record.dagster_run.status for record in records]


def test_a_killed_run_is_over_and_goes_on_to_the_same_weights_also_after_ctrl_c(
    start_run: StartRun, own_home: Path, tmp_path: Path
) -> None:
    killed = start_run()
    wait_until(killed.is_training, "training", 90)
    killed.process.kill()
    assert killed.wait() == -signal.SIGKILL
    wait_until(
        lambda: no_trainer_is_left(own_home), "the trainer's own end", SECONDS_FOR_A_CHECKPOINT
    )
    assert 0 < images_at_checkpoint(own_home) < KIMG * 1000

    interrupted = start_run()
    interrupt_when_it_trains(interrupted, interrupt_group, signal.SIGINT)

    again = start_run()
    assert again.wait() == 0, again.shown
    assert "✓ generator: done" in again.shown
    assert run_statuses(own_home) == [
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.SUCCESS,
    ]

    undisturbed = start_run(home=tmp_path / "undisturbed")
    assert undisturbed.wait() == 0, undisturbed.shown
    assert released_weights(own_home) == released_weights(undisturbed.home)


@LONG_FORM
def test_runs_at_once_train_one_after_the_other_and_waiting_costs_little(
    start_run: StartRun, own_home: Path
) -> None:
    runs = [start_run("--seed", "1"), start_run("--seed", "2")]
    waiter: StartedRun | None = None
    observed: list[tuple[float, float]] = []  # clock and processor seconds of the waiting run
    deadline = time.monotonic() + 180
    while any(run.alive for run in runs):
        assert time.monotonic() < deadline, "\n".join(run.shown for run in runs)
        alive = trainers(own_home)
        assert len(alive) <= 1, [process.cmdline() for process in alive]
        if waiter is None:
            waiter = next((run for run in runs if "waiting" in run.shown), None)
        if waiter is not None and alive and not is_child(alive[0], waiter):
            times = psutil.Process(waiter.process.pid).cpu_times()
            observed.append((time.monotonic(), times.user + times.system))
        time.sleep(0.1)

    assert [run.wait() for run in runs] == [0, 0], "\n".join(run.shown for run in runs)
    assert run_statuses(own_home) == [dg.DagsterRunStatus.SUCCESS] * 2
    (start, used_at_start), (end, used_at_end) = observed[0], observed[-1]
    assert end - start > 2
    assert used_at_end - used_at_start < 0.25 * (end - start)


@LONG_FORM
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_interrupted_run_says_so_leaves_no_trainer_and_can_be_continued(
    number: int, start_run: StartRun
) -> None:
    interrupt_when_it_trains(start_run(), interrupt_process, number)
    again = start_run()
    assert again.wait() == 0, again.shown


def interrupt_process(run: StartedRun, number: int) -> None:
    run.process.send_signal(number)


def interrupt_group(run: StartedRun, number: int) -> None:
    """As a terminal does it: the trainer gets the signal too."""
    os.killpg(run.process.pid, number)


def interrupt_when_it_trains(
    run: StartedRun, interrupt: Callable[[StartedRun, int], None], number: int
) -> None:
    """Interrupt a run whose training a person sees: it says so, and leaves a checkpoint alone."""
    wait_until(lambda: "img/s" in run.shown, "training that a person sees", 90)
    interrupt(run, number)
    assert run.wait(15) == 130, run.shown
    assert "interrupted" in run.shown.splitlines()[-1]
    assert "Traceback" not in run.shown
    assert no_trainer_is_left(run.home)
    assert 0 < images_at_checkpoint(run.home) < KIMG * 1000
