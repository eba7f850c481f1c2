"""Threads that wait give their core away while other programs want it."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_core import idle_threads
from gan_core.training.job import TrainingJob
from tests.conftest import subprocess_environment

MakeJob = Callable[..., TrainingJob]
SOON_SECONDS = 60.0

# Prints how often threads of two-thread sums went to sleep between them, as things are and with
# more threads than cores.
SLEEPS = """
import os, time
from pathlib import Path
import torch
from gan_core.idle_threads import more_threads_than_cores

def sleeps():
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if task.name != str(os.getpid()):
            lines = (task / "status").read_text().splitlines()
            (line,) = (line for line in lines if line.startswith("voluntary_ctxt_switches"))
            found[task.name] = int(line.split()[1])
    return found

def while_summing():
    before = sleeps()
    for _ in range(200):
        numbers.add_(1)
        end = time.perf_counter() + 3e-4
        while time.perf_counter() < end:
            pass
    after = sleeps()
    return sum(count - before.get(task, count) for task, count in after.items())

torch.set_num_threads(2)
numbers = torch.zeros(1 << 18)
numbers.add_(1)
alone = while_summing()
with more_threads_than_cores():
    time.sleep(0.5)
    print(alone, while_summing())
"""

# Ends as soon as the watcher has had other programs counted; they run until then.
CROWDED = """
import subprocess, sys, threading, time, torch
from gan_core.idle_threads import TEAM_NAME, give_way_to_other_programs

others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
try:
    give_way_to_other_programs()
    torch.set_num_threads(2)
    numbers, end = torch.zeros(1 << 18), time.monotonic() + 60
    while time.monotonic() < end:
        numbers.add_(1)
        if any(thread.name == TEAM_NAME for thread in threading.enumerate()):
            sys.exit("gave way")
finally:
    for other in others:
        other.kill()
"""

HERE = "from gan_core.idle_threads import *; give_way_to_other_programs()"
STEPS = """
import os, pipelines.step_server
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""
COMMAND_LINE = "from pipelines.command import main; main()"

# Imported by every Python process that finds it: tells which of them watches.
WATCHERS_TOLD = """
import os, threading

start = threading.Thread.start

def told(thread):
    if thread.name == "gives-way":
        with open(os.environ["WATCHERS"], "a") as file:
            file.write(f"{os.getpid()}\\n")
    start(thread)

threading.Thread.start = told
"""


def run(program: list[str | Path], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = subprocess_environment(**variables)
    for name in set(idle_threads.CHOICES) - set(variables):
        environment.pop(name, None)
    return subprocess.run(program, capture_output=True, text=True, env=environment, check=False)


def watchers(program: list[str | Path], folder: Path, **variables: str) -> int:
    """In how many processes of a program other programs are watched."""
    (folder / "sitecustomize.py").write_text(WATCHERS_TOLD)
    told = folder / "watchers"
    told.touch()
    path = os.pathsep.join([str(folder), *sys.path])
    run(program, PYTHONPATH=path, WATCHERS=str(told), **variables)
    processes = told.read_text().split()
    assert len(set(processes)) == len(processes)
    return len(processes)


def test_more_threads_than_cores_let_idle_ones_sleep() -> None:
    awake, asleep = map(
        int, run([sys.executable, "-c", SLEEPS], OMP_NUM_THREADS="2").stdout.split()
    )
    assert awake <= 50
    assert asleep >= 150


def test_a_computation_beside_others_gives_way() -> None:
    assert "gave way" in run([sys.executable, "-c", CROWDED], OMP_NUM_THREADS="2").stderr


@pytest.mark.parametrize("program", [HERE, STEPS, COMMAND_LINE])
def test_who_watches(program: str, tmp_path: Path) -> None:
    assert watchers([sys.executable, "-c", program, "--help"], tmp_path) == 1


@pytest.mark.parametrize(
    ("settings", "expected"), [({}, 1), ({"launcher": "torchrun", "processes": 2}, 3)]
)
def test_trainings_watch_in_each_process(
    settings: dict[str, Any], expected: int, make_job: MakeJob, tmp_path: Path
) -> None:
    (tmp_path / "job").mkdir()
    make_job(kimg=0.1, **settings).write(tmp_path / "job")
    training = [sys.executable, "-m", "gan_core.training", tmp_path / "job"]
    assert watchers(training, tmp_path) == expected


@pytest.mark.parametrize(
    ("variable", "value"), [("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "passive")]
)
def test_the_choice_of_the_environment_stays(variable: str, value: str, tmp_path: Path) -> None:
    assert watchers([sys.executable, "-c", HERE], tmp_path, **{variable: value}) == 0


class Over(Exception):  # noqa: N818
    """The test is."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """What the watcher that runs is told: seconds of waiting of each thread in each look."""
    shares: dict[str, float] = {"1": 0.0}
    total: dict[str, float] = {}
    looks = [time.monotonic()]
    ended = threading.Event()

    def told() -> dict[str, float]:
        if ended.is_set():
            raise Over
        now = dict(shares)
        looks.append(time.monotonic())
        for task, share in now.items():
            total[task] = total.get(task, 100.0) + share * (looks[-1] - looks[-2])
        return {task: total[task] for task in now}

    def watch() -> None:
        with contextlib.suppress(Over):
            idle_threads.watch_others()

    monkeypatch.setattr(idle_threads, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(idle_threads, "waits_for_a_core", told)
    watcher = threading.Thread(target=watch)
    watcher.start()
    yield shares
    shares["1"] = 0.0
    until(lambda: teams() == 0)
    ended.set()
    watcher.join()


def teams() -> int:
    return [thread.name for thread in threading.enumerate()].count(idle_threads.TEAM_NAME)


def until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_SECONDS
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cores", "threads", "expected"), [(2, 2, 1), (8, 3, 3), (8, 8, 1), (4, 8, 1), (2, 1, 0)]
)
def test_each_team_adds_all_its_threads_but_one(
    cores: int,
    threads: int,
    expected: int,
    set_threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_threads(threads)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    before = teams()
    with idle_threads.more_threads_than_cores():
        assert teams() - before == expected
        assert expected == 0 or threads + expected * (threads - 1) > cores
    assert teams() == before


def test_what_is_added_goes_when_the_others_have_gone(
    waits: dict[str, float], set_threads: Callable[[int], None]
) -> None:
    set_threads(2)
    waits["1"] = 0.5
    until(lambda: teams() > 0)
    waits["1"] = 0.0
    until(lambda: teams() == 0)


def test_where_the_system_keeps_no_account_others_may_wait(
    waits: dict[str, float], set_threads: Callable[[int], None]
) -> None:
    set_threads(2)
    waits.clear()
    until(lambda: teams() > 0)


def test_a_thread_that_has_ended_does_not_count(waits: dict[str, float]) -> None:
    waits["1"] = 0.05
    waits["2"] = 0.0
    time.sleep(0.2)
    del waits["2"]
    time.sleep(0.2)
    assert teams() == 0


def test_a_system_without_the_account_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert idle_threads.waits_for_a_core()
    (tmp_path / "1").mkdir()
    monkeypatch.setattr(idle_threads, "TASKS", tmp_path)
    assert idle_threads.waits_for_a_core() == {}
