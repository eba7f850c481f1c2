"""The servers of the user interface as child processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gan_core.errors import FoundryError
from pipelines.services import MOST_RESTARTS, Services
from tests.conftest import PROJECT
from tests.gan_core.trainings import wait_until

Children = Callable[[], list[psutil.Process]]

SLEEP = ("python", "-c", "import time; time.sleep(600)")
WITH_A_CHILD = (
    "python",
    "-c",
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; "
    "time.sleep(600)']); time.sleep(600)",
)


@pytest.fixture
def services(own_home: Path) -> Iterator[Services]:
    found = Services()
    yield found
    found.stop()


@pytest.fixture
def children() -> Children:
    """All that a test has started, without what tests before it have left."""
    others = psutil.Process().children(recursive=True)
    return lambda: [
        each for each in psutil.Process().children(recursive=True) if each not in others
    ]


def test_a_server_that_ended_by_itself_is_started_again(
    services: Services, children: Children
) -> None:
    services.start("sleeper", *SLEEP)
    services.require_alive()
    assert services.start_again() == []
    (first,) = children()
    first.kill()
    first.wait()
    assert services.start_again() == ["sleeper"]
    services.require_alive()


def test_a_server_that_ends_again_and_again_is_given_up_with_the_end_of_its_log(
    services: Services, own_home: Path
) -> None:
    services.start("broken", "python", "-c", "print('no such table'); raise SystemExit(3)")
    with pytest.raises(
        FoundryError, match=r"broken ended with status 3 \(no such table\); its log"
    ):
        for _ in range(1000):
            services.start_again()
            time.sleep(0.02)
    (log,) = own_home.rglob("broken.log")
    assert len(log.read_text().splitlines()) == 1 + MOST_RESTARTS == 6


def test_stopping_ends_the_servers_and_what_they_started(
    services: Services, children: Children
) -> None:
    services.start("parent", *WITH_A_CHILD)
    wait_until(lambda: len(children()) == 2, "the server's own child", 20)
    family = children()
    services.stop()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def test_servers_end_with_the_program_that_was_killed(own_home: Path) -> None:
    program = (
        "from pipelines.services import Services; import time; services = Services(); "
        f"services.start('sleeper', *{SLEEP!r}); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT, env={**os.environ})
    found: list[psutil.Process] = []

    def has_started() -> bool:
        found[:] = psutil.Process(parent.pid).children()
        return bool(found) and found[0].cmdline()[1:] == list(SLEEP[1:])  # no fork, no setpriv

    wait_until(has_started, "the server", 20)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(found, timeout=5)
    assert alive == []
