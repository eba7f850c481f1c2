"""What `gan-foundry ui` says when it cannot start; tests/browser uses it."""

import socket
from pathlib import Path

import filelock
import pytest

from pipelines.ui import LOCK_FILE
from tests.e2e.conftest import run_command

pytestmark = pytest.mark.slow


def test_a_port_in_use_is_named(own_home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run_command(own_home, "ui", "--port", str(port))

    assert result.status == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in result.stderr
    assert "--port" in result.stderr


def test_a_second_one_of_a_home_is_refused(own_home: Path) -> None:
    own_home.mkdir()
    with filelock.FileLock(own_home / LOCK_FILE):
        result = run_command(own_home, "ui")
    assert result.status == 2
    assert f"another `gan-foundry ui` has the daemon of {own_home}" in result.stderr
    assert "--read-only" in result.stderr
