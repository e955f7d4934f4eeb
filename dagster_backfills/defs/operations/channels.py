"""Notification channels: e-mail through SMTP and Slack through a webhook, configured by environment variables."""

import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import dagster as dg
from pydantic import Field

from dagster_backfills.defs.operations.notifications import Message
from dagster_backfills.environment import from_environment
from dagster_backfills.errors import UserError

VARIABLES = "NOTIFY_"
_TIMEOUT = 20
_PORTS = {"SSL": 465, "STARTTLS": 587, "NONE": 25}


class NotSentError(Exception):
    """A message could not be delivered. The sensor's next tick tries again. The text contains no secret."""


@dataclass(frozen=True)
class Email:
    """An SMTP server, the sender and the recipients. `security` is SSL, STARTTLS or NONE."""

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
            raise NotSentError(
                f"{self.host}:{self.port} did not accept the e-mail: {_reason(error)}"
            ) from None

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
    """An incoming webhook. Its URL is a secret, because anyone who has it can post to the channel."""

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
            body = error.read(200).decode(errors="replace").strip()
            raise NotSentError(f"Slack's webhook answered {error.code}: {body or error.reason}") from None
        except OSError as error:
            raise NotSentError(f"Slack's webhook does not answer: {_reason(error)}") from None


Channel = Email | Slack


class NotificationSettings(dg.ConfigurableResource):
    """Channels for failure notifications. Each field is set by a variable, for example `NOTIFY_EMAIL_TO`."""

    email_to: str = Field(default="", description="E-mail recipients, separated by commas. Empty: no e-mail.")
    email_from: str = Field(default="", description="The sender's address.")
    smtp_host: str = Field(default="", description="The SMTP server.")
    smtp_security: str = Field(default="SSL", description="SSL, STARTTLS or NONE.")
    smtp_port: str = Field(default="", description="Empty: 465, 587 or 25, depending on `smtp_security`.")
    smtp_user: str = Field(default="", description="Empty: `email_from`. Used only with a password.")
    smtp_password: str = Field(default="", description="Empty: no login.", repr=False)
    slack_webhook_url: str = Field(
        default="", description="The URL of an incoming webhook. Empty: no Slack messages.", repr=False
    )

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> "NotificationSettings":
        """The settings as references to the variables that are set. Their values are read when a sensor ticks."""
        fields = from_environment(cls, VARIABLES, environment)
        return cls(**{field: dg.EnvVar(_variable(field)) for field in fields})

    def channel(self, name: str) -> Channel:
        """The channel with this name. Raises UserError that names a missing or invalid variable."""
        return self._email() if name == "email" else self._slack()

    def _slack(self) -> Slack:
        webhook = self.slack_webhook_url.strip()
        if not webhook.startswith(("https://", "http://")):
            raise UserError(
                "NOTIFY_SLACK_WEBHOOK_URL is not a URL.", "Copy it from the webhook's page in Slack."
            )
        return Slack(webhook)

    def _email(self) -> Email:
        missing = [_variable(field) for field in ("email_from", "smtp_host") if not getattr(self, field)]
        if missing:
            raise UserError(
                f"NOTIFY_EMAIL_TO is set, but not {', '.join(missing)}.",
                "Set what is missing, or unset NOTIFY_EMAIL_TO.",
            )
        if self.smtp_security not in _PORTS or (self.smtp_port and not self.smtp_port.isdecimal()):
            raise UserError(
                f"NOTIFY_SMTP_SECURITY is {self.smtp_security!r} and NOTIFY_SMTP_PORT is {self.smtp_port!r}.",
                "Set the first to SSL, STARTTLS or NONE, and the port to a number, or unset the port.",
            )
        if self.smtp_password and self.smtp_security == "NONE":
            raise UserError(
                "NOTIFY_SMTP_PASSWORD would be sent unencrypted.",
                "Set NOTIFY_SMTP_SECURITY to SSL or STARTTLS.",
            )
        return Email(
            to=tuple(each.strip() for each in self.email_to.split(",") if each.strip()),
            sender=self.email_from,
            host=self.smtp_host,
            port=int(self.smtp_port or _PORTS[self.smtp_security]),
            security=self.smtp_security,
            user=self.smtp_user,
            password=self.smtp_password,
        )


def enabled_channels(environment: Mapping[str, str]) -> list[str]:
    """The names of the channels that the environment enables, even if their settings are invalid."""
    settings = from_environment(NotificationSettings, VARIABLES, environment)
    switches = {"email": "email_to", "slack": "slack_webhook_url"}
    return [name for name, field in switches.items() if settings.get(field, "").strip(" ,")]


def channels_from(environment: Mapping[str, str]) -> list[Channel]:
    """The enabled channels. Raises UserError that names a missing or invalid variable."""
    settings = NotificationSettings(**from_environment(NotificationSettings, VARIABLES, environment))
    return [settings.channel(name) for name in enabled_channels(environment)]


def _variable(field_name: str) -> str:
    return f"{VARIABLES}{field_name.upper()}"


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__
