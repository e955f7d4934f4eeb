"""Notification channels: e-mail through SMTP and Slack through a webhook, configured by environment variables."""

import json
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
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

    def check(self, channel: str) -> None:
        """Raise UserError that names a missing or invalid variable of the channel."""
        if channel == "slack":
            if not self.slack_webhook_url.strip().startswith(("https://", "http://")):
                raise UserError(
                    "NOTIFY_SLACK_WEBHOOK_URL is not a URL.", "Copy it from the webhook's page in Slack."
                )
            return
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

    def send(self, channel: str, message: Message) -> None:
        """Send the message. Raises NotSentError if it could not be delivered."""
        if channel == "slack":
            self._post_to_slack(message)
        else:
            self._send_email(message)

    def _send_email(self, message: Message) -> None:
        mail = EmailMessage()
        recipients = [each.strip() for each in self.email_to.split(",") if each.strip()]
        mail["Subject"], mail["From"], mail["To"] = message.subject, self.email_from, ", ".join(recipients)
        mail["Date"], mail["Message-ID"] = formatdate(localtime=False), make_msgid(domain="backfills")
        mail.set_content(message.text())
        mail.add_alternative(message.html(), subtype="html")
        port = int(self.smtp_port or _PORTS[self.smtp_security])
        try:
            with self._connect(port) as server:
                if self.smtp_password:
                    server.login(self.smtp_user or self.email_from, self.smtp_password)
                server.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise NotSentError(
                f"{self.smtp_host}:{port} did not accept the e-mail: {_reason(error)}"
            ) from None

    def _connect(self, port: int) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self.smtp_security == "SSL":
            return smtplib.SMTP_SSL(self.smtp_host, port, timeout=_TIMEOUT, context=context)
        server = smtplib.SMTP(self.smtp_host, port, timeout=_TIMEOUT)
        if self.smtp_security == "STARTTLS":
            server.starttls(context=context)
        return server

    def _post_to_slack(self, message: Message) -> None:
        request = urllib.request.Request(
            self.slack_webhook_url.strip(),
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


def enabled_channels(environment: Mapping[str, str]) -> list[str]:
    """The names of the channels that the environment enables, even if their settings are invalid."""
    settings = from_environment(NotificationSettings, VARIABLES, environment)
    switches = {"email": "email_to", "slack": "slack_webhook_url"}
    return [name for name, field in switches.items() if settings.get(field, "").strip(" ,")]


def checked_channels(environment: Mapping[str, str]) -> list[str]:
    """The names of the enabled channels. Raises UserError that names a missing or invalid variable."""
    settings = NotificationSettings(**from_environment(NotificationSettings, VARIABLES, environment))
    names = enabled_channels(environment)
    for name in names:
        settings.check(name)
    return names


def _variable(field_name: str) -> str:
    return f"{VARIABLES}{field_name.upper()}"


def _reason(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        text = error.smtp_error
        return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
    return str(getattr(error, "reason", "") or error) or type(error).__name__
