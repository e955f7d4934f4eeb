"""*Imports*: the list, one import as it goes, its rejected rows, its rollback. Not here: files on their way in."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from starlette.responses import Response

from dagster_backfills.domains.kintell.after.error_workbook import WORKBOOK
from dagster_backfills.domains.kintell.importing.account import ImportJob
from dagster_backfills.domains.kintell.importing.claims import LEASE_SECONDS
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.pages.visit import Visit, act, go_to, page, rows
from dagster_backfills.web.rejected_rows import CSV, rejected_rows

SQL = load_statements(Path(__file__).with_name("imports.sql"))
LISTED = 50
ERRORS = 100
_CANCELLABLE = ("pending", "running", "paused", "failed")


def listed(visit: Visit) -> Response:
    """The newest imports, and where a file is dropped."""
    after = uuid_of(visit.query("after"))
    with visit.database() as conn:
        found = rows(conn, SQL, "newest_imports", after=after, most=LISTED + 1)
    under_way = any(job["status"] in ("pending", "running") or job["activity"] for job in found[:LISTED])
    return visit.show(
        "imports.html", jobs=found[:LISTED], more=len(found) > LISTED, first=after is None,
        under_way=under_way, may=visit.may("imports"),
    )  # fmt: skip


def shown(visit: Visit) -> Response:
    """One import."""
    after = visit.query("after")
    with visit.database() as conn:
        job = visit.actions.imports.find(conn, visit.path("job"))
        found = rows(
            conn,
            SQL,
            "rejected_rows",
            job=job.id,
            after=int(after) if after.isdecimal() else 0,
            most=ERRORS + 1,
        )
        now: datetime = SQL.now(conn)
    return visit.show(
        "import.html", job=job, percent=percent(job), coarse=percent(job) // 10 * 10, silent=_silence(job, now),
        taking=_taking(job, now), errors=found[:ERRORS], more_errors=len(found) > ERRORS, first=not after,
        can=_can(job, now), may=visit.may("imports"), known=visit.query("known"),
    )  # fmt: skip


def percent(job: ImportJob) -> int:
    """Whole percents, 100 only where all is done."""
    if not job.total_rows:
        return 100 if job.status == "completed" else 0
    return 100 * job.processed_rows // job.total_rows


def _silence(job: ImportJob, now: datetime) -> timedelta | None:
    """How long its worker has given no sign of life, where that is too long."""
    if not job.activity or not job.heartbeat_at:
        return None
    silent = now - job.heartbeat_at
    return silent if silent.total_seconds() > LEASE_SECONDS else None


def _taking(job: ImportJob, now: datetime) -> timedelta | None:
    return (job.completed_at or now) - job.started_at if job.started_at and job.status != "paused" else None


def _can(job: ImportJob, now: datetime) -> set[str]:
    """The verbs that its state allows."""
    allowed = {"import": "resume", "replay": "replay", "rollback": "rollback"}
    resting = not job.activity or _silence(job, now) is not None
    found = {verb for activity, verb in allowed.items() if resting and _claimable(job, activity)}
    found -= set() if job.failed_rows else {"replay"}
    if job.status == "pending" and now - job.created_at < timedelta(minutes=1):
        found.discard("resume")  # its run is about to start
    if job.status == "running":
        found.add("pause")
    if job.status in _CANCELLABLE:
        found.add("cancel")
    return found


def _claimable(job: ImportJob, activity: str) -> bool:
    try:
        job.check_claimable(activity)
    except UserError:
        return False
    return True


def errors(visit: Visit, kind: str = CSV) -> Response:
    """The error file: rejected rows with what is wrong, to be mended and sent back."""
    with visit.database() as conn:
        job = visit.actions.imports.find(conn, visit.path("job"))
    return rejected_rows(visit.database, job, kind)


def rollback_preview(visit: Visit) -> Response:
    """What a rollback would do, before anything is done."""
    job, preview = visit.actions.imports.preview_rollback(visit.path("job"))
    return visit.show("rollback.html", job=job, preview=preview, may=visit.may("imports"))


def _rollback(visit: Visit, job: str) -> None:
    visit.actions.imports.rollback(job, visit.who.name)


def _resume(visit: Visit, job: str) -> None:
    visit.actions.imports.resume(job, visit.who.name)


def _replay(visit: Visit, job: str) -> None:
    create = "create_missing_users" in visit.fields
    visit.actions.imports.replay(job, visit.who.name, create_missing_users=create)


def _pause(visit: Visit, job: str) -> None:
    visit.actions.imports.pause(job)


def _cancel(visit: Visit, job: str) -> None:
    visit.actions.imports.cancel(job)


def _then_shown(does: Callable[[Visit, str], None]) -> Callable[[Visit], Response]:
    """Do it, and show the import as it is then."""

    def answer(visit: Visit) -> Response:
        does(visit, visit.path("job"))
        return go_to(f"/imports/{visit.path('job')}")

    return answer


def uuid_of(text: str) -> UUID | None:
    """An id as an address has it; None for what is none."""
    try:
        return UUID(text)
    except ValueError:
        return None


_VERBS: dict[str, Any] = {
    "pause": _pause, "cancel": _cancel, "resume": _resume, "replay": _replay, "rollback": _rollback,
}  # fmt: skip
routes = [
    page("/imports", listed),
    page("/imports/{job}", shown),
    page("/imports/{job}/errors.csv", errors),
    page("/imports/{job}/errors.xlsx", partial(errors, kind=WORKBOOK)),
    page("/imports/{job}/rollback", rollback_preview),
    *(act(f"/imports/{{job}}/{verb}", "imports", _then_shown(does)) for verb, does in _VERBS.items()),
]
