"""Pieces of `gan-foundry ui`; tests/e2e and tests/browser start it whole."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import ui
from pipelines.ui import StopSignal, answers
from tests.running_ui import free_port


@pytest.fixture
def own_server() -> Iterator[str]:
    """The address of a server of this machine."""
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_own_servers_are_not_looked_for_behind_a_proxy(
    own_server: str, dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, dead_server)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert answers(own_server)
    assert not answers(dead_server)


class IdleServices:
    """In the place of the servers: they are up at once, and somebody ends them at once."""

    def __init__(self, _: str) -> None:
        self.started: list[str] = []

    def start(self, name: str, *_: str) -> None:
        self.started.append(name)

    def require_alive(self) -> None:
        pass

    def start_again(self) -> list[str]:
        raise StopSignal

    def stop(self) -> None:
        pass


def test_the_pages_come_up_while_the_tracking_server_is_down(
    own_home: Path,
    dead_server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ui, "Services", IdleServices)
    monkeypatch.setattr(ui, "answers", lambda address: not address.startswith(dead_server))
    monkeypatch.setattr(ui.signal, "signal", lambda *_: None)  # the test's process keeps its own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server)
    monkeypatch.setenv("GAN_FOUNDRY_DAGSTER_UI", "http://example.org")  # else set for good
    monkeypatch.setenv("GAN_FOUNDRY_MLFLOW_UI", "http://example.org")
    monkeypatch.setenv("DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS", "600")
    ui.serve(free_port(), free_port())
    told = " ".join(capsys.readouterr().err.split())
    assert f"MLflow at {dead_server} does not answer (" in told
    assert "trainings go on without it" in told
    assert "Ctrl-C stops both." in told
