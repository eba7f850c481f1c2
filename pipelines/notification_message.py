"""A message to people, and how it reads on a webhook and as e-mail. Nothing is sent here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Literal

from gan_core.notification_settings import NotificationEvent

SLACK_BLOCK_CHARACTERS = 2900  # Slack takes 3000


@dataclass(frozen=True)
class Message:
    """What people are told.

    Attributes:
        event: What kind of thing happened.
        title: A few words, the pipeline's name first.
        sentence: What happened, and why.
        facts: Numbers and names beside it.
        links: Addresses of pages, by their names.
    """

    event: NotificationEvent | Literal["test"]
    title: str
    sentence: str
    facts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def slack_payload(message: Message) -> dict[str, Any]:
    """The message as Slack's incoming webhooks take it.

    Slack shows the blocks, and the text where there is little room; others read the text alone.
    """
    facts = "\n".join(f"*{_slack(name)}:* {_slack(value)}" for name, value in message.facts.items())
    links = " | ".join(f"<{address}|{_slack(name)}>" for name, address in message.links.items())
    parts = [f"*{_slack(message.title)}*\n{_slack(message.sentence)}", facts, links]
    blocks = [
        {"type": "section", "text": {"type": "mrkdwn", "text": part[:SLACK_BLOCK_CHARACTERS]}}
        for part in parts
        if part
    ]
    whole = [message.sentence, *(f"{name}: {value}" for name, value in message.facts.items())]
    return {"text": _slack(" | ".join(whole)), "blocks": blocks}


def _slack(text: str) -> str:
    """Text in which nothing is markup that would call people or hide an address."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def email(message: Message, sender: str, recipients: tuple[str, ...]) -> EmailMessage:
    """The message as e-mail in plain text."""
    mail = EmailMessage()
    mail["Subject"] = " ".join(f"[GAN Foundry] {message.title}".split())
    mail["From"], mail["To"] = sender, ", ".join(recipients)
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    facts = [f"{name}: {value}" for name, value in message.facts.items()]
    links = [f"{name}: {address}" for name, address in message.links.items()]
    paragraphs = [message.sentence, "\n".join(facts), "\n".join(links)]
    mail.set_content("\n\n".join(filter(None, paragraphs)) + "\n")
    return mail
