"""A webhook and a mail server on this machine, which keep what they are sent."""

import base64
import contextlib
import datetime
import html
import http.server
import ipaddress
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"


@dataclass
class WebhookReceiver:
    """What a webhook was sent.

    Attributes:
        port: Where it listens.
        statuses: Of the next answers; when there are none left, 200.
        delay_seconds: Before it answers.
        requests: Path and JSON of each request.
    """

    port: int = 0
    statuses: list[int] = field(default_factory=list)
    delay_seconds: float = 0.0
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def address(self, path: str) -> str:
        return f"http://{HOST}:{self.port}{path}"

    def take(self) -> list[str]:
        """The sentences that arrived since the last time."""
        texts = [html.unescape(payload["text"]).split(" | ")[0] for _, payload in self.requests]
        self.requests.clear()
        return texts


@contextlib.contextmanager
def webhook_receiver() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((self.path, json.loads(content)))
            time.sleep(receiver.delay_seconds)
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            with contextlib.suppress(BrokenPipeError):  # who asked may wait no longer
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with _serving(http.server.ThreadingHTTPServer((HOST, 0), Handler)) as receiver.port:
        yield receiver


@dataclass
class MailReceiver:
    """What a mail server was sent.

    Attributes:
        port: Where it listens.
        certificate: Its own authority's, for SSL_CERT_FILE; None if it offers no STARTTLS.
        mechanism: How it lets people log in.
        password: The one that it takes.
        mails: What arrived.
        commands: All lines that it was told outside of mails.
        logins: User, password and whether the connection was encrypted.
    """

    certificate: Path | None
    mechanism: str = "PLAIN"
    password: str = ""
    port: int = 0
    refused: tuple[str, ...] = ()
    mails: list[EmailMessage] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    logins: list[tuple[str, str, bool]] = field(default_factory=list)


@contextlib.contextmanager
def mail_receiver(folder: Path, *, encrypted: bool = True) -> Iterator[MailReceiver]:
    """A mail server that offers STARTTLS with a certificate of its own, or does not."""
    receiver = MailReceiver(_write_certificate(folder) if encrypted else None)
    context = None
    if receiver.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(receiver.certificate)

    class Handler(socketserver.StreamRequestHandler):
        def say(self, *lines: str) -> None:
            for line in lines:
                self.wfile.write(f"{line}\r\n".encode())

        def listen(self) -> str:
            return self.rfile.readline().decode().rstrip("\r\n")

        def decoded(self, text: str) -> str:
            return base64.b64decode(text).decode()

        def handle(self) -> None:
            self.say("220 here")
            while line := self.listen():
                receiver.commands.append(line)
                verb = line.split()[0].upper()
                if verb == "STARTTLS":
                    assert context is not None
                    self.say("220 go")
                    try:
                        self.request = context.wrap_socket(self.request, server_side=True)
                    except ssl.SSLError:
                        return
                    self.setup()
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    getattr(self, f"do_{verb.lower()}", self.do_other)(line)

        def do_ehlo(self, _: str) -> None:
            offer = "STARTTLS" if context else "8BITMIME"
            self.say("250-here", f"250-{offer}", f"250 AUTH {receiver.mechanism}")

        def do_auth(self, line: str) -> None:
            if receiver.mechanism == "PLAIN":
                _, user, password = self.decoded(line.split()[2]).split("\0")
            else:
                user = self.decoded(line.split()[2])
                self.say("334 UGFzc3dvcmQ6")
                password = self.decoded(self.listen())
            receiver.logins.append((user, password, isinstance(self.request, ssl.SSLSocket)))
            right = password == receiver.password
            self.say("235 welcome" if right else f"535 {user} {password} is not right")

        def do_rcpt(self, line: str) -> None:
            self.say("550 no" if any(name in line for name in receiver.refused) else "250 ok")

        def do_data(self, _: str) -> None:
            self.say("354 go on")
            lines = []
            while (line := self.listen()) != ".":
                lines.append(line)
            content = "\n".join(lines).encode()
            receiver.mails.append(message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]
            self.say("250 taken")

        def do_other(self, _: str) -> None:
            self.say("250 ok")

    with _serving(socketserver.ThreadingTCPServer((HOST, 0), Handler)) as receiver.port:
        yield receiver


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    """Serve in a thread; yields the port."""
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _write_certificate(folder: Path) -> Path:
    """Key and certificate of this machine's address, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address(HOST))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "mail.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file
