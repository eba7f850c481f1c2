"""Settings of whom a pipeline tells what.

No secret stands here: addresses of webhooks, and servers with their passwords, come from the
environment of the process that sends.
"""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .settings_base import Settings

NotificationEvent = Literal["failure", "blocked", "champion"]

VARIABLE_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
EMAIL_ADDRESS = re.compile(r"[^\s@<>,;:/\"]+@[^\s@<>,;:/\"]+")


class NotificationSettings(Settings):
    """Who is told of failures, blocked promotions and new champions; nobody by default."""

    webhook_variable: str | None = Field(
        None,
        description="Name of the environment variable that holds the address of a "
        "Slack-compatible webhook, such as `SLACK_WEBHOOK_URL`; none by default.",
    )
    email_to: tuple[str, ...] = Field(
        (),
        description="Who gets e-mail, such as `[a@b.org]`; the server stands in "
        "`GAN_FOUNDRY_SMTP_URL`, the sender in `GAN_FOUNDRY_SMTP_SENDER`.",
    )
    events: tuple[NotificationEvent, ...] = Field(
        ("failure", "blocked", "champion"),
        description="What is told: `failure` of a run, a candidate that was `blocked` or waits for "
        "a person, a new `champion`.",
    )

    # People paste addresses with secrets where the name of a variable belongs. The sentences below
    # do not repeat what they refuse: it would stand in logs and pages.

    @model_validator(mode="before")
    @classmethod
    def _is_a_section(cls, value: Any) -> Any:
        if not isinstance(value, (dict, cls)):
            raise ValueError(  # noqa: TRY004  # pydantic reports no TypeError
                "it must be a mapping of settings; what stands there is not shown here, because "
                "it may be a secret"
            )
        return value

    @field_validator("webhook_variable", mode="before")
    @classmethod
    def _names_a_variable(cls, value: Any) -> Any:
        named = isinstance(value, str) and VARIABLE_NAME.fullmatch(value)
        if value is None or named:
            return value
        raise ValueError(
            "it must be the name of an environment variable in capitals, such as "
            "SLACK_WEBHOOK_URL, which holds the address; what stands there is not shown here, "
            "because it may be a secret"
        )

    @field_validator("email_to", mode="before")
    @classmethod
    def _are_addresses(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError("it must be a list of addresses, such as [a@b.org]")  # noqa: TRY004
        for place, address in enumerate(value, start=1):
            if not (isinstance(address, str) and EMAIL_ADDRESS.fullmatch(address)):
                raise ValueError(
                    f"entry {place} is not an address such as a@b.org; it is not shown here, "
                    "because it may be a secret"
                )
        return value
