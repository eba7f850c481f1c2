import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import s3fs

from gan_core.data.download import MIRROR_VARIABLE, RemoteFile, fetch
from gan_core.errors import FoundryError

CONTENT = b"pixels " * 1000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Publisher:
    """A web server on this machine that counts what it is asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.truncated = False
        self.asked: list[str] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked.append(self.path)
                content = publisher.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:1000] if publisher.truncated else content)

            def do_HEAD(self) -> None:
                content = publisher.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.send_header("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")
                self.send_header("ETag", '"1"')
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    publisher = Publisher()
    thread = threading.Thread(target=publisher.server.serve_forever, args=(0.01,))
    thread.start()
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()
    thread.join()


@pytest.fixture
def mirror_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | None], str]:
    """Sets a `file://` mirror, which holds the file with some content or lacks it."""

    def make(content: bytes | None) -> str:
        folder = tmp_path / "mirror" / "set"
        folder.mkdir(parents=True)
        if content is not None:
            (folder / "images.bin").write_bytes(content)
        monkeypatch.setenv(MIRROR_VARIABLE, folder.parent.as_uri())
        return f"{folder.parent.as_uri()}/set/images.bin"

    return make


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def remote(*addresses: str) -> RemoteFile:
    return RemoteFile("set/images.bin", SHA256, addresses)


def closed_port_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/images.bin"


def refusal(file: RemoteFile, folder: Path) -> str:
    """The sentence with which a download is given up, after nothing was left behind."""
    with pytest.raises(FoundryError) as caught:
        fetch(file, folder)
    assert not folder.exists() or list(folder.iterdir()) == []
    return str(caught.value)


def test_the_mirror_is_asked_first(
    publisher: Publisher, mirror_of: Callable[[bytes | None], str], target: Path
) -> None:
    mirror_of(CONTENT)
    path = fetch(remote(f"{publisher.address}/images.bin"), target)
    assert path == target / "images.bin"
    assert path.read_bytes() == CONTENT
    assert publisher.asked == []


@pytest.mark.parametrize("held", [None, b"another file"], ids=["lacks", "differs"])
def test_what_the_mirror_lacks_comes_from_the_publisher(
    publisher: Publisher,
    mirror_of: Callable[[bytes | None], str],
    target: Path,
    held: bytes | None,
) -> None:
    mirror_of(held)
    publisher.files["/images.bin"] = CONTENT
    path = fetch(remote(f"{publisher.address}/images.bin"), target)
    assert path.read_bytes() == CONTENT


def test_the_next_publisher_is_asked_when_one_fails(publisher: Publisher, target: Path) -> None:
    publisher.files["/second"] = CONTENT
    fetch(remote(f"{publisher.address}/first", f"{publisher.address}/second"), target)
    assert publisher.asked == ["/first", "/second"]
    assert (target / "images.bin").read_bytes() == CONTENT


def test_a_verified_file_is_not_fetched_twice(publisher: Publisher, target: Path) -> None:
    publisher.files["/images.bin"] = CONTENT
    for _ in range(2):
        fetch(remote(f"{publisher.address}/images.bin"), target)
    assert publisher.asked == ["/images.bin"]


def test_a_damaged_copy_is_replaced(publisher: Publisher, target: Path) -> None:
    publisher.files["/images.bin"] = CONTENT
    target.mkdir()
    (target / "images.bin").write_bytes(CONTENT[:-1])
    fetch(remote(f"{publisher.address}/images.bin"), target)
    assert (target / "images.bin").read_bytes() == CONTENT


def test_a_checksum_that_differs_is_stated_with_the_one_expected(
    publisher: Publisher, target: Path
) -> None:
    publisher.files["/images.bin"] = b"another file"
    sentence = refusal(remote(f"{publisher.address}/images.bin"), target)
    assert hashlib.sha256(b"another file").hexdigest() in sentence
    assert SHA256.removeprefix("sha256:") in sentence
    assert f"{publisher.address}/images.bin" in sentence


def test_a_download_that_breaks_off_is_an_error(publisher: Publisher, target: Path) -> None:
    publisher.files["/images.bin"] = CONTENT
    publisher.truncated = True
    sentence = refusal(remote(f"{publisher.address}/images.bin"), target)
    assert "the download broke off" in sentence
    assert len(publisher.asked) > 1, "a broken connection is worth another attempt"


def test_a_short_file_on_the_mirror_is_an_error(
    mirror_of: Callable[[bytes | None], str], target: Path
) -> None:
    address = mirror_of(CONTENT[:1000])
    sentence = refusal(remote(), target)
    assert address in sentence
    assert "truncated" in sentence
    assert MIRROR_VARIABLE in sentence


def test_without_network_and_mirror_the_error_names_every_address_and_the_remedy(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    addresses = closed_port_address(), "file:///nowhere/images.bin"
    sentence = refusal(remote(*addresses), target)
    assert sentence.startswith("images.bin could not be downloaded")
    assert f"{addresses[0]} (no connection)" in sentence
    assert f"{addresses[1]} (there is no such file)" in sentence
    assert f"set {MIRROR_VARIABLE} to a place that holds set/images.bin" in sentence
    assert "\n" not in sentence


def test_neither_error_nor_log_repeat_a_password(
    target: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    address = closed_port_address().replace("http://", "http://ann:secret@")
    told = refusal(remote(address), target) + caplog.text
    assert "secret" not in told
    assert told.count("http://ann:***@127.0.0.1") == 2


def test_a_server_that_lacks_the_file_is_named_with_its_answer(
    publisher: Publisher, target: Path
) -> None:
    sentence = refusal(remote(f"{publisher.address}/images.bin"), target)
    assert f"{publisher.address}/images.bin (the server answered 404)" in sentence


def test_a_mirror_that_is_no_address_is_refused(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, "/data/mirror")
    sentence = refusal(remote("http://127.0.0.1:1/images.bin"), target)
    assert sentence.startswith(f"{MIRROR_VARIABLE} is '/data/mirror', but it must be an address")


def test_a_mirror_of_an_unknown_kind_is_named(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, "carrier-pigeon://roof")
    assert "carrier-pigeon://roof/set/images.bin" in refusal(remote(), target)


def test_a_mirror_may_be_a_bucket_of_an_object_store(
    publisher: Publisher, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The store's own protocol, over this machine's server: list no buckets, get objects.
    publisher.files["/bucket/mirror/set/images.bin"] = CONTENT
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", publisher.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv(MIRROR_VARIABLE, "s3://bucket/mirror")
    assert fetch(remote(), target).read_bytes() == CONTENT


def test_an_object_store_without_credentials_is_named_with_its_reason(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(MIRROR_VARIABLE, "s3://bucket/mirror")
    assert "s3://bucket/mirror/set/images.bin (NoCredentialsError" in refusal(remote(), target)
