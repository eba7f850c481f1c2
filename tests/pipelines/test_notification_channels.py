"""How messages reach a webhook and a mail server, and what is said when they do not."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from click.testing import CliRunner, Result

from gan_core.errors import FoundryError
from gan_core.notification_settings import NotificationSettings
from pipelines import notification_channels, pipeline_files
from pipelines.cli import main
from pipelines.doctor import examine
from pipelines.home import prepare_home
from pipelines.notification_channels import ChannelError, Email, Webhook
from pipelines.notification_message import Message, email, slack_payload
from pipelines.notifications import tell
from tests.pipelines.receivers import (
    HOST,
    MailReceiver,
    WebhookReceiver,
    mail_receiver,
    webhook_receiver,
)

VARIABLE = "CHAT_WEBHOOK"
SECRET = "T0SECRET"  # noqa: S105
PATH = f"/services/{SECRET}"
USER, PASSWORD = "sender@b.org", "pass/word@SECRET"
URL_PASSWORD = quote(PASSWORD, safe="")
MESSAGE = Message(
    "champion",
    "digits: version 3 is the new champion",
    "digits version 3 is the new champion: 1.2 < 2.0 & surely better.",
    {"distance": "1.2 (95 % interval 1.1 to 1.3)"},
    {"Run in Dagster": "http://pages/runs/1"},
)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notification_channels, "RETRY_SECONDS", 0.0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookReceiver]:
    with webhook_receiver() as receiver:
        monkeypatch.setenv(VARIABLE, receiver.address(PATH))
        yield receiver


@pytest.fixture
def mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MailReceiver]:
    with mail_receiver(tmp_path) as receiver:
        receiver.password = PASSWORD
        monkeypatch.setenv("SSL_CERT_FILE", str(receiver.certificate))
        set_server(monkeypatch, receiver)
        yield receiver


def set_server(
    monkeypatch: pytest.MonkeyPatch, receiver: MailReceiver, login: str | None = None
) -> None:
    login = f"{USER.replace('@', '%40')}:{URL_PASSWORD}@" if login is None else login
    monkeypatch.setenv("GAN_FOUNDRY_SMTP_URL", f"smtp://{login}{HOST}:{receiver.port}")


def refusal(channel: Webhook | Email) -> str:
    """The sentence with which a channel fails; it holds nothing that is secret."""
    with pytest.raises(ChannelError) as caught:
        channel.send(MESSAGE)
    text = str(caught.value)
    for secret in (SECRET, PATH, "pass/word", URL_PASSWORD, USER, "SECRET@"):
        assert secret not in text
    return text


def test_a_webhook_gets_what_slack_takes(webhook: WebhookReceiver) -> None:
    Webhook(VARIABLE).send(MESSAGE)
    ((path, payload),) = webhook.requests
    assert path == PATH
    assert set(payload) == {"text", "blocks"}
    assert payload["text"] == (
        "digits version 3 is the new champion: 1.2 &lt; 2.0 &amp; surely better. | "
        "distance: 1.2 (95 % interval 1.1 to 1.3)"
    )
    texts = [block["text"]["text"] for block in payload["blocks"]]
    assert [block["text"]["type"] for block in payload["blocks"]] == ["mrkdwn"] * 3
    assert texts[0].startswith("*digits: version 3 is the new champion*\ndigits version 3 is ")
    assert texts[1:] == [
        "*distance:* 1.2 (95 % interval 1.1 to 1.3)",
        "<http://pages/runs/1|Run in Dagster>",
    ]


def test_no_text_calls_people_and_none_is_longer_than_slack_takes() -> None:
    payload = slack_payload(Message("failure", "digits failed", "<!channel> " + "x" * 9000))
    (block,) = payload["blocks"]
    assert "<!channel>" not in block["text"]["text"]
    assert len(block["text"]["text"]) <= 3000


def test_a_webhook_that_is_busy_is_asked_again(webhook: WebhookReceiver) -> None:
    webhook.statuses = [503, 429]
    Webhook(VARIABLE).send(MESSAGE)
    assert len(webhook.requests) == 3


def test_a_webhook_that_stays_broken_is_one_sentence(webhook: WebhookReceiver) -> None:
    webhook.statuses = [500] * 9
    assert refusal(Webhook(VARIABLE)) == (
        f"webhook {VARIABLE}: {HOST} answered with status 500; check the network, and the address "
        f"in {VARIABLE}."
    )
    assert len(webhook.requests) == 3


@pytest.mark.parametrize("status", [404, 302, 307])
def test_a_webhook_that_is_gone_or_elsewhere_is_asked_once(
    webhook: WebhookReceiver, status: int
) -> None:
    webhook.statuses = [status]
    assert f"{HOST} answered with status {status}; correct the address" in refusal(
        Webhook(VARIABLE)
    )
    assert [path for path, _ in webhook.requests] == [PATH]


def test_a_message_whose_answer_is_late_is_not_sent_again(
    webhook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification_channels, "TIMEOUT_SECONDS", 0.1)
    webhook.delay_seconds = 0.3
    assert "gave no answer that can be used (ReadTimeout)" in refusal(Webhook(VARIABLE))
    assert len(webhook.requests) == 1


def test_a_webhook_where_nothing_answers_is_one_sentence(
    dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, dead_server + PATH)
    assert f"{HOST} cannot be reached (ConnectionError)" in refusal(Webhook(VARIABLE))


@pytest.mark.parametrize("value", [None, "", " "])
def test_a_variable_that_is_not_set_is_named(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert f"the environment variable {VARIABLE} is not set" in refusal(Webhook(VARIABLE))


@pytest.mark.parametrize(
    "value", [SECRET, f"hooks.example.org{PATH}", f"file://{PATH}", f"http://[{SECRET}", "https://"]
)
def test_what_is_no_address_is_not_repeated(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert f"{VARIABLE} holds no address that begins with https://" in refusal(Webhook(VARIABLE))


def test_libraries_log_no_path_of_the_address(
    webhook: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "urllib3")
    Webhook(VARIABLE).send(MESSAGE)
    assert SECRET not in caplog.text
    requests.post(webhook.address(PATH), json={}, timeout=5)
    assert SECRET in caplog.text  # what others log is theirs


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_mail_is_sent_after_an_encrypted_login(mail: MailReceiver, mechanism: str) -> None:
    mail.mechanism = mechanism
    Email(("a@b.org", "c@d.org")).send(MESSAGE)
    assert mail.logins == [(USER, PASSWORD, True)]
    (found,) = mail.mails
    assert found["Subject"] == "[GAN Foundry] digits: version 3 is the new champion"
    assert (found["From"], found["To"]) == (USER, "a@b.org, c@d.org")
    assert found.get_content_type() == "text/plain"
    assert found.get_content().splitlines() == [
        MESSAGE.sentence,
        "",
        "distance: 1.2 (95 % interval 1.1 to 1.3)",
        "",
        "Run in Dagster: http://pages/runs/1",
    ]


def test_a_password_is_never_sent_in_the_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_receiver(tmp_path, encrypted=False) as receiver:
        set_server(monkeypatch, receiver)
        assert "offers no encryption (STARTTLS), so the password was not sent" in refusal(
            Email(("a@b.org",))
        )
        assert receiver.logins == []
        assert receiver.mails == []
        assert not any(line.startswith("AUTH") for line in receiver.commands)


def test_a_server_without_password_needs_a_sender_and_no_encryption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mail_receiver(tmp_path, encrypted=False) as receiver:
        set_server(monkeypatch, receiver, login="")
        assert "GAN_FOUNDRY_SMTP_SENDER holds no address" in refusal(Email(("a@b.org",)))
        monkeypatch.setenv("GAN_FOUNDRY_SMTP_SENDER", "foundry@b.org")
        Email(("a@b.org",)).send(MESSAGE)
        assert [found["From"] for found in receiver.mails] == ["foundry@b.org"]


def test_an_unknown_certificate_is_one_sentence_and_nothing_is_sent(
    mail: MailReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert f"no encrypted connection to {HOST} (SSLCertVerificationError)" in refusal(
        Email(("a@b.org",))
    )
    assert mail.logins == []


def test_a_wrong_password_is_one_sentence_without_it(mail: MailReceiver) -> None:
    mail.password += "!"  # the server repeats what it was told
    assert f"{HOST} refused with status 535 (SMTPAuthenticationError)" in refusal(
        Email(("a@b.org",))
    )


def test_recipients_that_are_refused_are_counted(mail: MailReceiver) -> None:
    mail.refused = ("c@d.org",)
    assert f"{HOST} refused 1 of 2 recipients" in refusal(Email(("a@b.org", "c@d.org")))
    assert len(mail.mails) == 1
    assert f"{HOST} refused (SMTPRecipientsRefused)" in refusal(Email(("c@d.org",)))


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (None, "the environment variable GAN_FOUNDRY_SMTP_URL is not set"),
        (f"https://{USER}", "GAN_FOUNDRY_SMTP_URL holds no address such as smtp://"),
        (f"smtp://sender:12/{SECRET}@host", "holds no address such as smtp://"),
        (f"smtp://sender:{SECRET}#x@host", "holds no address such as smtp://"),
        ("smtp://sender%40b.org:x@{dead}", f"{HOST} cannot be reached (ConnectionRefusedError)"),
        ("smtps://sender%40b.org:x@{dead}", f"{HOST} cannot be reached (ConnectionRefusedError)"),
    ],
)
def test_a_mail_server_that_cannot_be_used_is_one_sentence(
    address: str | None, told: str, dead_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GAN_FOUNDRY_SMTP_URL", raising=False)
    if address is not None:
        dead = dead_server.removeprefix("http://")
        monkeypatch.setenv("GAN_FOUNDRY_SMTP_URL", address.format(dead=dead))
    assert told in refusal(Email(("a@b.org",)))


def test_a_title_of_several_lines_is_one_subject() -> None:
    found = email(Message("failure", "digits:\nBcc: x@y.org", "x"), USER, ("a@b.org",))
    assert found["Subject"] == "[GAN Foundry] digits: Bcc: x@y.org"
    assert found["Bcc"] is None


def test_only_events_that_are_wanted_are_sent_and_only_where_people_are_named(
    webhook: WebhookReceiver, mail: MailReceiver
) -> None:
    tell(NotificationSettings(), MESSAGE)
    tell(NotificationSettings(webhook_variable=VARIABLE, events=("failure",)), MESSAGE)
    assert webhook.requests == []
    tell(NotificationSettings(webhook_variable=VARIABLE), MESSAGE)
    assert (len(webhook.requests), len(mail.mails)) == (1, 0)


def test_one_channel_that_fails_does_not_keep_the_other_from_sending(
    mail: MailReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    tell(NotificationSettings(webhook_variable=VARIABLE, email_to=("a@b.org",)), MESSAGE)
    assert len(mail.mails) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"the environment variable {VARIABLE} is not set" in record.message
    assert record.exc_info is None


def pipeline_with(folder: Path, notifications: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pipeline, `faces`, with these notifications."""
    monkeypatch.setattr(pipeline_files, "DEFS_FOLDER", folder / "defs")
    (folder / "defs" / "faces").mkdir(parents=True)
    (folder / "defs" / "faces" / "defs.yaml").write_text(
        f"type: {pipeline_files.COMPONENT_TYPE}\n"
        "attributes:\n  data: {source: digits, resolution: 16}\n"
        f"  notifications: {notifications}\n"
    )


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["notify", *arguments])


BOTH = f"{{webhook_variable: {VARIABLE}, email_to: [a@b.org]}}"


def test_a_test_message_goes_through_every_channel(
    webhook: WebhookReceiver, mail: MailReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline_with(tmp_path, BOTH, monkeypatch)
    result = invoke("faces", "--test", "--json")
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["channels"].values()) == {"a test message was sent"}
    assert webhook.take() == ["This is a test: what happens to faces is told here."]
    assert [found["Subject"] for found in mail.mails] == ["[GAN Foundry] faces: test"]


def test_a_test_that_does_not_arrive_is_one_sentence_and_status_2(
    mail: MailReceiver, dead_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline_with(tmp_path, BOTH, monkeypatch)
    monkeypatch.setenv(VARIABLE, dead_server + PATH)
    result = invoke("faces", "--test")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: webhook {VARIABLE}: {HOST} cannot be reached")
    assert SECRET not in result.output
    assert len(mail.mails) == 1


def test_a_pipeline_that_tells_nobody_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline_with(tmp_path, "{}", monkeypatch)
    result = invoke("faces", "--test")
    assert result.exit_code == 2
    assert "faces tells nobody; set notifications.webhook_variable" in result.stderr


def test_channels_are_told_to_be_configured_without_their_addresses(
    webhook: WebhookReceiver, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline_with(tmp_path, BOTH, monkeypatch)
    monkeypatch.delenv("GAN_FOUNDRY_SMTP_URL", raising=False)
    prepare_home()
    expected = {
        f"webhook {VARIABLE}": "configured",
        "e-mail through GAN_FOUNDRY_SMTP_URL": "the environment variable GAN_FOUNDRY_SMTP_URL is "
        "not set; set it where `gan-foundry` starts.",
    }
    report = examine()
    assert report["notifications"] == {"faces": expected}
    assert report["healthy"]  # a run needs none of it
    assert SECRET not in json.dumps(report)
    assert json.loads(invoke("faces", "--json").stdout)["channels"] == expected
    assert webhook.requests == []


@pytest.mark.parametrize(
    ("pasted", "told"),
    [
        (f"{{webhook_variable: 'https://hooks{PATH}'}}", "must be the name of an environment vari"),
        (f"{{webhook_variable: [{SECRET}]}}", "must be the name of an environment variable"),
        (f"'https://hooks{PATH}'", "notifications: it must be a mapping of settings"),
        (f"{{webhook: 'https://hooks{PATH}'}}", "did you mean notifications.webhook_variable?"),
        (f"{{email_to: 'smtp://u:{SECRET}@h'}}", "must be a list of addresses"),
        (f"{{email_to: ['smtp://u:{SECRET}@h']}}", "entry 1 is not an address such as a@b.org"),
    ],
)
def test_a_secret_that_is_pasted_into_the_file_is_refused_and_not_repeated(
    pasted: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline_with(tmp_path, pasted, monkeypatch)
    with pytest.raises(FoundryError) as caught:
        pipeline_files.load_pipeline("faces")
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)
