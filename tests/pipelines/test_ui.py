"""Pieces of `gan-foundry ui`; tests/e2e and tests/browser start it whole."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from pipelines.ui import answers


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
