"""E-mail when a scoring run fails: Dagster's own sensor, set up from the environment, absent without it."""

import html
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from dagster_backfills.defs.scoring import jobs
from dagster_backfills.lib.errors import UserError

if TYPE_CHECKING:
    from dagster._utils.error import SerializableErrorInfo

_LONGEST_SUBJECT = 120


@dg.definitions
def scoring_notifications() -> dg.Definitions:
    sensor = failure_email_sensor(os.environ)
    return dg.Definitions(sensors=[sensor] if sensor else [])


def failure_email_sensor(environment: Mapping[str, str]) -> dg.SensorDefinition | None:
    """The sensor that `SCORING_EMAIL_TO` asks for, or None.

    `SCORING_EMAIL_TO` (addresses with commas between them), `SCORING_EMAIL_FROM`, `SCORING_SMTP_HOST`,
    `SCORING_SMTP_PASSWORD`; and if need be `SCORING_SMTP_USER` (else the sender), `SCORING_SMTP_TYPE` (`SSL` or
    `STARTTLS`), `SCORING_SMTP_PORT`, `DAGSTER_WEBSERVER_URL` for a link. Raises UserError where one is missing.
    """
    to = [
        address.strip() for address in environment.get("SCORING_EMAIL_TO", "").split(",") if address.strip()
    ]
    if not to:
        return None
    needed = ("SCORING_EMAIL_FROM", "SCORING_SMTP_HOST", "SCORING_SMTP_PASSWORD")
    absent = [name for name in needed if not environment.get(name)]
    if absent:
        raise UserError(
            f"SCORING_EMAIL_TO is set, and {', '.join(absent)} not.",
            hint="Set them, or unset SCORING_EMAIL_TO.",
        )
    kind = environment.get("SCORING_SMTP_TYPE", "") or "SSL"
    port = environment.get("SCORING_SMTP_PORT", "")
    if kind not in ("SSL", "STARTTLS") or (port and not port.isdecimal()):
        raise UserError(
            f"SCORING_SMTP_TYPE is {kind!r} and SCORING_SMTP_PORT is {port!r}.",
            hint="The type is SSL or STARTTLS, the port a number or unset.",
        )
    return dg.make_email_on_run_failure_sensor(
        email_from=environment["SCORING_EMAIL_FROM"],
        email_password=environment["SCORING_SMTP_PASSWORD"],
        email_to=to,
        email_subject_fn=subject,
        email_body_fn=body,
        smtp_host=environment["SCORING_SMTP_HOST"],
        smtp_type=kind,
        smtp_port=int(port) if port else None,
        smtp_user=environment.get("SCORING_SMTP_USER") or None,
        name="scoring_failure_email",
        webserver_base_url=environment.get("DAGSTER_WEBSERVER_URL") or None,
        monitored_jobs=[
            jobs.commitment_scores_job,
            jobs.churn_risk_scores_job,
            jobs.coach_actions_job,
            jobs.scoring_chain_job,
        ],
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def subject(context: dg.RunFailureSensorContext) -> str:
    """One line in ASCII, as a header has to be."""
    line = f"[JOB FAILURE] {context.dagster_run.job_name} {_day(context)}"
    return " ".join(line.encode("ascii", "replace").decode().split())[:_LONGEST_SUBJECT]


def body(context: dg.RunFailureSensorContext) -> str:
    """What failed and why, as HTML in ASCII: the message is sent as it stands."""
    errors = [event.step_failure_data.error for event in context.get_step_failure_events()]
    reasons = [_root(error).message.strip() for error in errors if error is not None]
    lines = [
        f"Job {context.dagster_run.job_name} failed for {_day(context)}.",
        f"Run {context.dagster_run.run_id}.",
        *(reasons or [context.failure_event.message or "No reason was given."]),
        "What had been written stays; a run for the same day goes on with what is missing.",
    ]
    return "<br>".join(html.escape(line).encode("ascii", "xmlcharrefreplace").decode() for line in lines)


def _root(error: "SerializableErrorInfo") -> "SerializableErrorInfo":
    """What was at the bottom of it; Dagster wraps what goes wrong while an output is stored."""
    while error.cause is not None:
        error = error.cause
    return error


def _day(context: dg.RunFailureSensorContext) -> str:
    tags = context.dagster_run.tags
    start = tags.get("dagster/asset_partition_range_start")
    given = f"{start} to {tags.get('dagster/asset_partition_range_end')}" if start else "(no day)"
    return tags.get("dagster/partition", given)
