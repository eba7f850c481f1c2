"""How a message leaves: a Slack-compatible webhook, and e-mail.

Addresses and passwords are read from the environment when a message is sent and kept nowhere. What
libraries raise or log may quote them, so nothing of it is passed on but the class and the status.
"""

import contextlib
import logging
import os
import smtplib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from gan_core.errors import FoundryError
from gan_core.notification_settings import EMAIL_ADDRESS, NotificationSettings
from pipelines.notification_message import Message, email, slack_payload

SMTP_VARIABLE = "GAN_FOUNDRY_SMTP_URL"
SENDER_VARIABLE = "GAN_FOUNDRY_SMTP_SENDER"
SMTP_FORM = "smtp://user:password@host:587 or smtps://user:password@host:465"

TIMEOUT_SECONDS = 5.0
ATTEMPTS = 3
RETRY_SECONDS = 1.0  # before the second attempt, and twice as long before the third

Result = TypeVar("Result")


class ChannelError(FoundryError):
    """A message could not be sent; the text holds no address, user or password."""


class _NotYetError(Exception):
    """The other side cannot take the message now; the text says what it answered."""


@dataclass(frozen=True)
class Webhook:
    """A Slack-compatible webhook.

    Attributes:
        variable: Name of the environment variable that holds its address.
    """

    variable: str

    @property
    def name(self) -> str:
        """For people; without an address."""
        return f"webhook {self.variable}"

    @property
    def state(self) -> str:
        """Whether the environment has what it takes."""
        return _state(self._address)

    def send(self, message: Message) -> None:
        """Post the message; an answer that is not of the 200s is an error, redirects included.

        A message whose answer took too long is not sent again: it may have arrived.

        Raises:
            ChannelError: It was not taken.
        """
        import requests

        address = self._address()
        host = urlsplit(address).hostname

        def post() -> None:
            try:
                with requests.post(
                    address,
                    json=slack_payload(message),
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,  # the message and the address are for this host alone
                    stream=True,  # the answer's body is nobody's concern
                ) as answer:
                    status = answer.status_code
            except requests.ConnectionError as error:
                raise _NotYetError(f"{host} cannot be reached ({type(error).__name__})") from None
            if status == requests.codes.too_many_requests or status >= 500:
                raise _NotYetError(f"{host} answered with status {status}")
            if not 200 <= status < 300:
                raise ChannelError(
                    f"{self.name}: {host} answered with status {status}; correct the address in "
                    f"{self.variable}."
                )

        try:
            with _silent("urllib3.connectionpool"):
                _retrying(post)
        except _NotYetError as error:
            raise ChannelError(
                f"{self.name}: {error}; check the network, and the address in {self.variable}."
            ) from None
        except (requests.RequestException, ValueError, OSError) as error:
            raise ChannelError(
                f"{self.name}: {host} gave no answer that can be used ({type(error).__name__}); "
                f"check the address in {self.variable}."
            ) from None

    def _address(self) -> str:
        address = _required(self.variable)
        if not _is_address(address, ("http", "https")):
            raise ChannelError(
                f"{self.variable} holds no address that begins with https://; correct it."
            )
        return address


@dataclass(frozen=True)
class Email:
    """E-mail through the server that the environment names.

    Attributes:
        recipients: Their addresses.
    """

    recipients: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people; without an address."""
        return f"e-mail through {SMTP_VARIABLE}"

    @property
    def state(self) -> str:
        """Whether the environment has what it takes."""
        return _state(lambda: self._sender(self._server()))

    def send(self, message: Message) -> None:
        """Hand the message to the server, encrypted where it can; a password never in the clear.

        Raises:
            ChannelError: It was not taken, or not for all recipients.
        """
        server = self._server()
        mail = email(message, self._sender(server), self.recipients)
        try:
            with _connected(server) as smtp:
                refused = smtp.send_message(mail)
        except smtplib.SMTPException as error:
            code = getattr(error, "smtp_code", None)
            status = f" with status {code}" if code else ""
            raise ChannelError(
                f"{self.name}: {server.hostname} refused{status} ({type(error).__name__}); check "
                f"{SMTP_VARIABLE} and {SENDER_VARIABLE}."
            ) from None
        except ssl.SSLError as error:
            raise ChannelError(
                f"{self.name}: no encrypted connection to {server.hostname} "
                f"({type(error).__name__}); check its certificate, or name the authority that "
                "signed it with SSL_CERT_FILE."
            ) from None
        except (OSError, ValueError) as error:
            raise ChannelError(
                f"{self.name}: {server.hostname} cannot be reached ({type(error).__name__}); check "
                f"the network, and the address in {SMTP_VARIABLE}."
            ) from None
        if refused:
            raise ChannelError(
                f"{self.name}: {server.hostname} refused {len(refused)} of "
                f"{len(self.recipients)} recipients; check notifications.email_to."
            )

    def _server(self) -> SplitResult:
        address = _required(SMTP_VARIABLE)
        # What follows the host is the rest of a password with characters that have to be escaped.
        if not _is_address(address, ("smtp", "smtps")) or any(urlsplit(address)[2:]):
            raise ChannelError(
                f"{SMTP_VARIABLE} holds no address such as {SMTP_FORM}; correct it, and write "
                "characters like @ and / of a password as %40 and %2F."
            )
        return urlsplit(address)

    def _sender(self, server: SplitResult) -> str:
        sender = os.environ.get(SENDER_VARIABLE) or unquote(server.username or "")
        if not EMAIL_ADDRESS.fullmatch(sender):
            raise ChannelError(
                f"{SENDER_VARIABLE} holds no address such as gan-foundry@b.org, and the user of "
                f"{SMTP_VARIABLE} is none either; set it."
            )
        return sender


Channel = Webhook | Email


def open_channels(settings: NotificationSettings) -> list[Channel]:
    """The ways that a pipeline's settings name."""
    found: list[Channel] = []
    if settings.webhook_variable is not None:
        found.append(Webhook(settings.webhook_variable))
    if settings.email_to:
        found.append(Email(settings.email_to))
    return found


def channel_states(settings: NotificationSettings) -> dict[str, str]:
    """Of each way, by its name, whether the environment has what it takes; never what it is."""
    return {channel.name: channel.state for channel in open_channels(settings)}


@contextlib.contextmanager
def _connected(server: SplitResult) -> Iterator[smtplib.SMTP]:
    """A session with a mail server, encrypted and logged in as its address says."""
    host, context = server.hostname or "", ssl.create_default_context()

    def connect() -> smtplib.SMTP:
        try:
            if server.scheme == "smtps":
                port = server.port or smtplib.SMTP_SSL_PORT
                return smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=context)
            return smtplib.SMTP(host, server.port or 587, timeout=TIMEOUT_SECONDS)
        except ssl.SSLError:
            raise
        except OSError as error:
            raise _NotYetError(type(error).__name__) from None

    try:
        smtp = _retrying(connect)
    except _NotYetError as error:
        raise ChannelError(
            f"e-mail through {SMTP_VARIABLE}: {host} cannot be reached ({error}); check the "
            f"network, and the address in {SMTP_VARIABLE}."
        ) from None
    try:
        smtp.ehlo()
        if server.scheme == "smtp" and smtp.has_extn("starttls"):
            smtp.starttls(context=context)
            smtp.ehlo()
        elif server.scheme == "smtp" and server.password:
            raise ChannelError(
                f"e-mail through {SMTP_VARIABLE}: {host} offers no encryption (STARTTLS), so the "
                "password was not sent; use a server that does, or smtps://."
            )
        if server.password:
            smtp.login(unquote(server.username or ""), unquote(server.password))
        yield smtp
    finally:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        smtp.close()


def _retrying(act: Callable[[], Result]) -> Result:
    """Do something, again after a while if it cannot be done yet."""
    import tenacity

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_exponential(RETRY_SECONDS),
        retry=tenacity.retry_if_exception_type(_NotYetError),
        reraise=True,
    )(act)


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Drop what this thread logs there: at DEBUG, it is the path of every request."""
    logger, own = logging.getLogger(name), threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != own

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def _required(variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ChannelError(
            f"the environment variable {variable} is not set; set it where `gan-foundry` starts."
        )
    return value


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)


def _state(check: Callable[[], object]) -> str:
    try:
        check()
    except ChannelError as error:
        return str(error)
    return "configured"
