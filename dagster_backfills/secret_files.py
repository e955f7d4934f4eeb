"""Secrets from files, as containers are given them: `DATABASE_URL_FILE` names a file that holds `DATABASE_URL`.

Not here: what the secrets are for, and keeping them out of what is logged.
"""

from collections.abc import MutableMapping
from pathlib import Path

from dagster_backfills.errors import NotUsableError

# Every variable that holds a secret, or a URL with one in it.
SECRETS = (
    "BACKFILLS_PROXY_SECRET",
    "BACKFILLS_TOKENS",
    "CRON_SECRET",
    "DATABASE_URL",
    "DAGSTER_POSTGRES_URL",
    "JOBS_TOKEN",
    "KINTELL_NATS_URL",
    "MUX_TOKEN_ID",
    "MUX_TOKEN_SECRET",
    "NOTIFY_SLACK_WEBHOOK_URL",
    "NOTIFY_SMTP_PASSWORD",
    "NOTIFY_SMTP_USER",
    "OPENAI_API_KEY",
)


def read_secret_files(environment: MutableMapping[str, str]) -> None:
    """Set each secret that is not set, or empty, from the file that its `…_FILE` names, without the last line end.

    Raises NotUsableError, naming the variable and the file, where the file can't be read.
    """
    for name in SECRETS:
        file = environment.get(f"{name}_FILE", "").strip()
        if not file or environment.get(name, "").strip():
            continue
        try:
            environment[name] = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            hint = f"Give this user the right to read it, or set {name}."
            raise NotUsableError(f"{name}_FILE names {file}, which can't be read: {reason}.", hint) from error
