"""*Imports*: the list, one import with its progress and rejected rows, rollback. Not here: uploaded files (`files`)."""

from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from starlette.responses import Response

from dagster_backfills.domains.kintell.after.error_workbook import WORKBOOK
from dagster_backfills.domains.kintell.importing.jobs import LEASE_SECONDS, ImportJob
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.pages.visit import Visit, act, go_to, listed, page, readable
from dagster_backfills.web.refusals import not_found
from dagster_backfills.web.rejected_rows import CSV, rejected_rows

SQL = load_statements(Path(__file__).with_name("imports.sql"))
LISTED = 50
ERRORS = 100
_CANCELLABLE = ("pending", "running", "paused", "failed")


def overview(visit: Visit) -> Response:
    """The newest imports, and the upload form."""
    with visit.database() as conn:
        jobs = listed(conn, SQL.newest_imports, LISTED, readable(UUID, visit.query("after")))
    under_way = any(job["status"] in ("pending", "running") or job["activity"] for job in jobs.rows)
    return visit.show("imports.html", jobs=jobs, under_way=under_way, may=visit.may("imports"))


def shown(visit: Visit) -> Response:
    """One import."""
    with visit.database() as conn:
        job = visit.actions.imports.find(conn, visit.path("job"))
        errors = listed(conn, STATEMENTS.errors, ERRORS, readable(int, visit.query("after")), job=job.id)
        now: datetime = SQL.now(conn)
    return visit.show(
        "import.html", job=job, percent=int(job.percent), coarse=int(job.percent) // 10 * 10,
        silent=_silence(job, now), taking=_taking(job, now), errors=errors, can=_can(job, now),
        may=visit.may("imports"), known=visit.query("known"),
    )  # fmt: skip


def _silence(job: ImportJob, now: datetime) -> timedelta | None:
    """The time since the last heartbeat if it exceeds the lease, else None."""
    if not job.activity or not job.heartbeat_at:
        return None
    silent = now - job.heartbeat_at
    return silent if silent.total_seconds() > LEASE_SECONDS else None


def _taking(job: ImportJob, now: datetime) -> timedelta | None:
    return (job.completed_at or now) - job.started_at if job.started_at and job.status != "paused" else None


def _can(job: ImportJob, now: datetime) -> set[str]:
    """The actions that the job's state allows."""
    allowed = {"import": "resume", "replay": "replay", "rollback": "rollback"}
    idle = not job.activity or _silence(job, now) is not None
    verbs = {verb for activity, verb in allowed.items() if idle and _claimable(job, activity)}
    verbs -= set() if job.failed_rows else {"replay"}
    if job.status == "pending" and now - job.created_at < timedelta(minutes=1):
        verbs.discard("resume")  # its run is about to start
    if job.status == "running":
        verbs.add("pause")
    if job.status in _CANCELLABLE:
        verbs.add("cancel")
    return verbs


def _claimable(job: ImportJob, activity: str) -> bool:
    try:
        job.check_claimable(activity)
    except UserError:
        return False
    return True


def errors(visit: Visit, kind: str = CSV) -> Response:
    """Download the error file: rejected rows with their errors, to be corrected and sent again."""
    with visit.database() as conn:
        job = visit.actions.imports.find(conn, visit.path("job"))
    return rejected_rows(visit.database, job, kind)


def rollback_preview(visit: Visit) -> Response:
    """What a rollback would do. Writes nothing."""
    job, preview = visit.actions.imports.preview_rollback(visit.path("job"))
    return visit.show("rollback.html", job=job, preview=preview, may=visit.may("imports"))


def change(visit: Visit) -> Response:
    """Perform the action of a form and go back to the import."""
    imports, who = visit.actions.imports, visit.who.name
    job, verb = visit.path("job"), visit.path("verb")
    if verb in ("pause", "cancel"):
        imports.set_status(job, verb)
    elif verb == "resume":
        imports.resume(job, who)
    elif verb == "replay":
        imports.replay(job, who, create_missing_users="create_missing_users" in visit.fields)
    elif verb == "rollback":
        imports.rollback(job, who)
    else:
        raise not_found("such page")
    return go_to(f"/imports/{job}")


routes = [
    page("/imports", overview),
    page("/imports/{job}", shown),
    page("/imports/{job}/errors.csv", errors),
    page("/imports/{job}/errors.xlsx", partial(errors, kind=WORKBOOK)),
    page("/imports/{job}/rollback", rollback_preview),
    act("/imports/{job}/{verb}", "imports", change),
]
