"""How a message reaches people: e-mail by SMTP, Slack by a webhook. Set up from the environment, absent without it."""

import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Protocol

from dagster_backfills.defs.operations.notifications import Message
from dagster_backfills.lib.errors import UserError

_TIMEOUT = 20
_PORTS = {"SSL": 465, "STARTTLS": 587, "NONE": 25}


class NotSentError(Exception):
    """The message did not get through; the sensor's next tick tries again. The text names no secret."""


class Channel(Protocol):
    """A way to people."""

    @property
    def name(self) -> str: ...

    def send(self, message: Message) -> None:
        """Deliver, or raise NotSentError."""
        ...


@dataclass(frozen=True)
class Email:
    """An SMTP server and who writes to whom. `security` is SSL, STARTTLS or NONE."""

    to: tuple[str, ...]
    sender: str
    host: str
    port: int
    security: str
    user: str
    password: str = field(repr=False)
    name: str = "email"

    def send(self, message: Message) -> None:
        mail = EmailMessage()
        mail["Subject"], mail["From"], mail["To"] = message.subject, self.sender, ", ".join(self.to)
        mail["Date"], mail["Message-ID"] = formatdate(localtime=False), make_msgid(domain="backfills")
        mail.set_content(message.text())
        mail.add_alternative(message.html(), subtype="html")
        try:
            with self._connect() as server:
                if self.password:
                    server.login(self.user or self.sender, self.password)
                server.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise NotSentError(f"{self.host}:{self.port} did not take the e-mail: {_why(error)}") from None

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self.security == "SSL":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=_TIMEOUT, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=_TIMEOUT)
        if self.security == "STARTTLS":
            server.starttls(context=context)
        return server


@dataclass(frozen=True)
class Slack:
    """An incoming webhook. Its address is a secret: whoever has it can write to the channel."""

    webhook: str = field(repr=False)
    name: str = "slack"

    def send(self, message: Message) -> None:
        request = urllib.request.Request(
            self.webhook,
            data=json.dumps(message.slack()).encode(),
            headers={"Content-Type": "application/json; charset=utf-8"},
        )
        try:
            urllib.request.urlopen(request, timeout=_TIMEOUT).close()
        except urllib.error.HTTPError as error:
            said = error.read(200).decode(errors="replace").strip()
            raise NotSentError(f"Slack's webhook answered {error.code}: {said or error.reason}") from None
        except OSError as error:
            raise NotSentError(f"Slack's webhook does not answer: {_why(error)}") from None


def channels_from(environment: Mapping[str, str]) -> list[Channel]:
    """The channels that are set up. Raises UserError that names the variable that is missing or wrong.

    `NOTIFY_EMAIL_TO` (addresses with commas between them) asks for e-mail, with `NOTIFY_EMAIL_FROM`,
    `NOTIFY_SMTP_HOST` and if need be `NOTIFY_SMTP_SECURITY`, `NOTIFY_SMTP_PORT`, `NOTIFY_SMTP_USER`,
    `NOTIFY_SMTP_PASSWORD`; `NOTIFY_SLACK_WEBHOOK_URL` asks for Slack.
    """
    given = {name: value.strip() for name, value in environment.items() if name.startswith("NOTIFY_")}
    channels: list[Channel] = []
    to = tuple(each.strip() for each in given.get("NOTIFY_EMAIL_TO", "").split(",") if each.strip())
    if to:
        channels.append(_email(to, given))
    webhook = given.get("NOTIFY_SLACK_WEBHOOK_URL", "")
    if webhook:
        if not webhook.startswith(("https://", "http://")):
            raise UserError(
                "NOTIFY_SLACK_WEBHOOK_URL is no URL.", "Copy it from Slack's page of the webhook."
            )
        channels.append(Slack(webhook))
    return channels


def _email(to: tuple[str, ...], given: Mapping[str, str]) -> Email:
    absent = [name for name in ("NOTIFY_EMAIL_FROM", "NOTIFY_SMTP_HOST") if not given.get(name)]
    if absent:
        raise UserError(
            f"NOTIFY_EMAIL_TO is set, and {', '.join(absent)} not.", "Set them, or unset NOTIFY_EMAIL_TO."
        )
    security, port = given.get("NOTIFY_SMTP_SECURITY") or "SSL", given.get("NOTIFY_SMTP_PORT") or ""
    if security not in _PORTS or (port and not port.isdecimal()):
        raise UserError(
            f"NOTIFY_SMTP_SECURITY is {security!r} and NOTIFY_SMTP_PORT is {port!r}.",
            "The first is SSL, STARTTLS or NONE, the port a number or unset.",
        )
    password = given.get("NOTIFY_SMTP_PASSWORD", "")
    if password and security == "NONE":
        raise UserError(
            "NOTIFY_SMTP_PASSWORD would be sent in the clear.", "Set NOTIFY_SMTP_SECURITY to SSL or STARTTLS."
        )
    return Email(
        to, given["NOTIFY_EMAIL_FROM"], given["NOTIFY_SMTP_HOST"], int(port) if port else _PORTS[security],
        security, given.get("NOTIFY_SMTP_USER", ""), password,
    )  # fmt: skip


def _why(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        return f"{error.smtp_code} {said.decode(errors='replace') if isinstance(said, bytes) else said}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__
