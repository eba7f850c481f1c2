"""What `gan-foundry ui` says when it cannot start, and beside another; tests/browser uses it."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock
import psutil
import pytest

from pipelines.services import LOG_FOLDER
from pipelines.ui import LOCK_FILE
from tests.e2e.conftest import run_command
from tests.running_ui import RunningUi

pytestmark = pytest.mark.slow


@pytest.fixture
def running_elsewhere(own_home: Path) -> Iterator[None]:
    """The home's daemon has another process."""
    own_home.mkdir()
    with filelock.FileLock(own_home / LOCK_FILE):
        yield


def test_a_port_in_use_is_named(own_home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run_command(own_home, "ui", "--port", str(port))

    assert result.status == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in result.stderr
    assert "--port" in result.stderr


@pytest.mark.usefixtures("running_elsewhere")
def test_a_second_one_of_a_home_is_refused(own_home: Path) -> None:
    result = run_command(own_home, "ui")
    assert result.status == 2
    assert f"another `gan-foundry ui` has the daemon of {own_home}" in result.stderr
    assert "--read-only" in result.stderr


@pytest.mark.usefixtures("running_elsewhere")
def test_a_second_one_that_only_shows_has_no_daemon_and_logs_of_its_own(own_home: Path) -> None:
    ui = RunningUi(own_home, "--read-only")
    servers = psutil.Process(ui.process.pid).children(recursive=True)
    try:
        assert not any("dagster-daemon" in " ".join(server.cmdline()) for server in servers)
        port = ui.dagster.rpartition(":")[2]
        logs = {log.name for log in (own_home / LOG_FOLDER).iterdir()}
        assert logs == {f"mlflow-{port}.log", f"dagster-webserver-{port}.log"}
    finally:
        assert ui.stop(signal.SIGINT) == []
