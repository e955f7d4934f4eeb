"""The text of notifications about failed runs and failed units. Not here: sending (`channels`, `sensors`)."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import psycopg
from psycopg.rows import class_row

from dagster_backfills.dagster.cause import failed_steps
from dagster_backfills.defs.operations.history import job_of, partitions_of
from dagster_backfills.domains.operations.statements import STATEMENTS
from dagster_backfills.names import counted
from dagster_backfills.redact import redact

SHOWN_UNITS = 10
SHOWN_RUNS = 10
_LONGEST_REASON = 400
_LONGEST_SUBJECT = 120


@dataclass(frozen=True)
class FailingUnit:
    """A unit that a run could not write, with the database's message. `total` counts the run's failed units."""

    asset: str
    partition: str | None
    unit: str | None
    message: str
    total: int

    def __str__(self) -> str:
        where = " ".join(part for part in (self.asset, self.partition, self.unit) if part)
        return f"{where}: {_short(self.message)}"


@dataclass(frozen=True)
class FailedRun:
    """A failed run, or (if `whole` is false) a successful run with failed units, as shown in a notification."""

    run_id: str
    job: str
    partitions: str | None
    reasons: tuple[str, ...]
    units: tuple[FailingUnit, ...]
    link: str | None
    whole: bool = True

    @property
    def title(self) -> str:
        return f"{self.job} {self.partitions}" if self.partitions else self.job

    @property
    def outcome(self) -> str:
        if self.whole:
            return "failed."
        total = self.units[0].total if self.units else 0
        return f"succeeded, but {counted(total, 'unit')} failed."

    @property
    def items(self) -> list[str]:
        """The first failed units, and the number of those not shown."""
        hidden = self.units[0].total - len(self.units) if self.units else 0
        more = [f"and {hidden:,} more: backfills failures"] if hidden else []
        return [*map(str, self.units), *more]


@dataclass(frozen=True)
class Message:
    """A notification about one or several failed runs."""

    subject: str
    runs: tuple[FailedRun, ...]
    more_runs: int = 0

    def text(self) -> str:
        """The plain-text body."""
        return "\n\n".join([*map(_text, self.runs), *self._more()]) + "\n"

    def html(self) -> str:
        """The HTML body."""
        return "<br>".join([*map(_html, self.runs), *self._more()])

    def slack(self) -> dict[str, Any]:
        """The request body for a Slack webhook."""
        sections = [*map(_mrkdwn, self.runs), *self._more()]
        blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text[:3000]}} for text in sections]
        return {"text": _escaped(self.subject), "blocks": blocks}

    def _more(self) -> list[str]:
        return [f"And {self.more_runs:,} more runs."] if self.more_runs else []


def failed_run(
    conn: psycopg.Connection,
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    event: dg.DagsterEvent,
    ui: str,
) -> FailedRun:
    """Collect the run's step errors from the event log and its failed units from the ledger.

    event: the run's last status change.
    """
    binds = {"run_id": run.run_id, "shown": SHOWN_UNITS}
    cursor = conn.cursor(row_factory=class_row(FailingUnit))
    units = cursor.execute(STATEMENTS["failing_units"], binds).fetchall()
    conn.commit()
    reasons = [reason for _, reason in failed_steps(instance, run.run_id, 5)]
    whole = event.event_type is dg.DagsterEventType.RUN_FAILURE
    if whole and not reasons:
        reasons = [event.message or "No reason was recorded."]
    return FailedRun(
        run.run_id,
        job_of(run),
        partitions_of(run.tags),
        tuple(dict.fromkeys(_short(reason) for reason in reasons)),
        tuple(units),
        f"{ui.rstrip('/')}/runs/{run.run_id}" if ui else None,
        whole,
    )


def message_of(runs: Sequence[FailedRun]) -> Message:
    """One message for all of the runs, so that many failures do not send many messages."""
    title = runs[0].title if len(runs) == 1 else f"{len(runs):,} runs"
    kind = "JOB FAILURE" if any(run.whole for run in runs) else "FAILED UNITS"
    subject = " ".join(f"[{kind}] {title}".split())[:_LONGEST_SUBJECT]
    return Message(subject, tuple(runs[:SHOWN_RUNS]), max(len(runs) - SHOWN_RUNS, 0))


def _short(text: str) -> str:
    line = redact(" ".join(text.split()))
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"


def _text(run: FailedRun) -> str:
    lines = [f"{run.title} {run.outcome}", *run.reasons]
    if run.items:
        lines += ["Failed units:", *(f"- {item}" for item in run.items)]
    return "\n".join([*lines, f"Run {run.run_id}" + (f": {run.link}" if run.link else "")])


def _html(run: FailedRun) -> str:
    parts = [f"<p><b>{html.escape(run.title)}</b> {run.outcome}<br>"]
    parts += [f"{html.escape(reason)}<br>" for reason in run.reasons]
    parts.append("</p>")
    if run.items:
        parts.append(f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in run.items)}</ul>")
    name = f"Run {run.run_id}"
    parts.append(f'<p><a href="{html.escape(run.link)}">{name}</a></p>' if run.link else f"<p>{name}</p>")
    return "".join(parts)


def _mrkdwn(run: FailedRun) -> str:
    name = f"<{run.link}|Run {run.run_id[:8]}>" if run.link else f"Run {run.run_id}"
    lines = [f"*{_escaped(run.title)}* {run.outcome} {name}", *map(_escaped, run.reasons)]
    return "\n".join([*lines, *(f"• {_escaped(item)}" for item in run.items)])


def _escaped(text: str) -> str:
    """The text with Slack's three control characters escaped."""
    return html.escape(text, quote=False)
