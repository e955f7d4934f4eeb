"""Secrets from files, as containers mount them: `DATABASE_URL_FILE` names a file with the value of `DATABASE_URL`.

Not here: keeping secrets out of logs (`redact`).
"""

from collections.abc import MutableMapping
from pathlib import Path

from dagster_backfills.errors import NotUsableError

# All variables that hold a secret, or a URL that contains one.
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
    """Set each unset or empty secret from the file that its `…_FILE` variable names, without trailing line breaks.

    Raises NotUsableError, naming the variable and the file, if a file can't be read.
    """
    for name in SECRETS:
        file = environment.get(f"{name}_FILE", "").strip()
        if not file or environment.get(name, "").strip():
            continue
        try:
            environment[name] = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            hint = f"Let this user read the file, or set {name}."
            raise NotUsableError(f"{name}_FILE names {file}, which can't be read: {reason}.", hint) from error
