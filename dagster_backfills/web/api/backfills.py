"""`/api/backfills/…`, `/api/runs/…`, `/api/training/backfill`: the verbs of any backfill, and how a run stands."""

import asyncio
import time
from pathlib import Path
from typing import Any

from psycopg.rows import dict_row
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dagster_backfills.domains.training.status import missing_records, run_totals
from dagster_backfills.engine.selection import Which
from dagster_backfills.errors import NotUsableError, UserError
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.actions import Actions, postgres_of
from dagster_backfills.web.api.calls import Body, Call, call, camel
from dagster_backfills.web.auth import require
from dagster_backfills.web.database import Database
from dagster_backfills.web.limits import json_body
from dagster_backfills.web.refusals import Refused, answer
from dagster_backfills.web.runs import RunState

STATEMENTS = load_statements(Path(__file__).parents[1] / "queries.sql")
TRAINING = "training_completions"
_LOOK_SECONDS = 0.5


class Choice(Body):
    """Which partitions. `partitions` names them."""

    which: Which | None = None
    partitions: list[str] = Field(default=[])

    @property
    def chosen(self) -> Which:
        if self.partitions and self.which not in (None, Which.named):
            raise Refused(422, "partitions and which exclude each other.", "Give one of them.")
        if not self.partitions and self.which is Which.named:
            raise Refused(422, "which is named, and no partition is.", "Give partitions.")
        return Which.named if self.partitions else self.which or Which.needed


class Undo(Body):
    run_id: str = Field(min_length=1)
    partitions: list[str] = Field(default=[])
    dry_run: bool = True


class Training(Body):
    organization_id: str | None = None
    wait_seconds: float = Field(default=0, ge=0)


def names(call: Call) -> Any:
    return {"backfills": [{"name": each.name, "tables": each.assets} for each in call.actions.backfills()]}


def plan(call: Call) -> Any:
    wanted = call.read(Choice)
    report = call.actions.plan(call.path("name"), wanted.chosen, wanted.partitions)
    return report.as_json()


def run(call: Call) -> Any:
    wanted = call.read(Choice)
    run_id = call.actions.launch(call.path("name"), call.by, wanted.chosen, wanted.partitions)
    return said_of(call.database, call.actions.runs.state(run_id))


def status(call: Call) -> Any:
    """What needs work, and the newest runs."""
    backfill = call.actions.backfill(call.path("name"))
    instance = call.actions.runs.instance
    counts = {}
    with postgres_of(backfill).connect() as conn:
        for which in (Which.all, Which.needed, Which.stale, Which.missing, Which.failed):
            counts[which.value] = len(backfill.selection(instance).choose(conn, which))
        with conn.cursor(row_factory=dict_row) as cursor:
            binds = {"assets": backfill.assets, "max_rows": 20}
            runs = cursor.execute(STATEMENTS["runs_of_assets"], binds).fetchall()
    return {
        "name": backfill.name,
        "tables": backfill.assets,
        "partitions": counts,
        "runs": [camel(row) for row in runs],
    }


def undo(call: Call) -> Any:
    """What undoing a run would do, or the run that does it."""
    wanted, name = call.read(Undo), call.path("name")
    run_id, report = call.actions.preview_undo(name, wanted.run_id, wanted.partitions)
    said = {"undoes": run_id, "dryRun": wanted.dry_run, **report.as_json()}
    if wanted.dry_run:
        return answer(said)
    return {**said, "runId": call.actions.undo(name, run_id, wanted.partitions, call.by)}


async def train(request: Request) -> Response:
    """Completion records of one organization, or of all; with `waitSeconds`, what came of it."""
    call = Call(request, require(request, "backfills"), await json_body(request))
    wanted = call.read(Training)
    before = await run_in_threadpool(_missing, call.database, wanted.organization_id)
    partitions = [wanted.organization_id] if wanted.organization_id else []
    which = Which.named if partitions else Which.all
    run_id = await run_in_threadpool(call.actions.launch, TRAINING, call.by, which, partitions)
    state = await ended(call.actions, run_id, wanted.wait_seconds)
    said = await run_in_threadpool(said_of, call.database, state)
    missing = {"organizations": len(before), "recordsMissing": sum(before.values())}
    totals = await run_in_threadpool(_totals, call.database, run_id) if state.finished else {}
    return answer({**said, **missing, **totals}, 200 if state.finished else 202)


def _missing(database: Database, organization_id: str | None) -> dict[str, int]:
    with database() as conn:
        try:
            return missing_records(conn, organization_id)
        except NotUsableError:
            raise
        except UserError as error:
            raise Refused(404, error.message, error.hint) from None


def _totals(database: Database, run_id: str) -> dict[str, Any]:
    with database() as conn:
        return camel(run_totals(conn, run_id))


def one_run(call: Call) -> Any:
    return said_of(call.database, call.actions.runs.state(call.path("run")))


async def ended(actions: Actions, run_id: str, seconds: float) -> RunState:
    """How a run stands when it has ended, or after so many seconds, of which only some are allowed."""
    deadline = time.monotonic() + min(seconds, actions.settings.limits.wait_seconds)
    while True:
        state = await run_in_threadpool(actions.runs.state, run_id)
        if state.finished or time.monotonic() > deadline:
            return state
        await asyncio.sleep(_LOOK_SECONDS)


def said_of(database: Database, state: RunState) -> dict[str, Any]:
    """A run, and what it has changed so far."""
    binds = {"run_id": state.run_id, "max_rows": 100}
    with database() as conn, conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(STATEMENTS["run_rows"], binds).fetchall()
        failed = cursor.execute(STATEMENTS["run_failures"], binds).fetchall()
    return {
        "runId": state.run_id,
        "job": state.job,
        "status": state.status,
        "finished": state.finished,
        "success": state.succeeded,
        "tables": rows,
        "failed": failed,
        "statusUrl": f"/api/runs/{state.run_id}",
    }


_NAME = "/api/backfills/{name}"
routes = [
    call("/api/backfills", "backfills", names),
    call(f"{_NAME}/plan", "backfills", plan, "POST"),
    call(f"{_NAME}/run", "backfills", run, "POST", status=202),
    call(f"{_NAME}/status", "backfills", status),
    call(f"{_NAME}/undo", "backfills", undo, "POST", status=202),
    call("/api/runs/{run}", "backfills", one_run),
    Route("/api/training/backfill", train, methods=["POST"]),
]
