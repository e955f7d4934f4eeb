"""`/api/backfills/…`, `/api/runs/…` and `/api/training/backfill`: plan, run, status and undo; a run's status."""

import asyncio
import time
from datetime import datetime
from math import inf
from typing import Any

import dagster as dg
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from dagster_backfills.components.loading import postgres_of
from dagster_backfills.domains.training.status import missing_records, run_totals
from dagster_backfills.engine.partition_status import count_by_state
from dagster_backfills.engine.results import RESULTS
from dagster_backfills.engine.selection import Which, which_of
from dagster_backfills.web.actions import Actions
from dagster_backfills.web.api.calls import Answer, Body, Operation, camel
from dagster_backfills.web.call import Call
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import answer, refused_as

TRAINING = "training_completions"
_POLL_SECONDS = 0.5
_MAX_FAILURES = 100


class Choice(Body):
    """The partitions to work on: by state (`which`) or by key (`partitions`)."""

    which: Which | None = None
    partitions: list[str] = Field(default=[])

    @property
    def chosen(self) -> Which:
        with refused_as(422):
            return which_of(self.which, self.partitions)


class Undo(Body):
    run_id: str = Field(min_length=1)
    partitions: list[str] = Field(default=[])
    dry_run: bool = True


class Train(Body):
    organization_id: str | None = None
    wait_seconds: float = Field(default=0, ge=0)


class Named(Answer):
    name: str
    tables: list[str]


class Backfills(Answer):
    backfills: list[Named]


class PastRun(Answer):
    run_id: str
    outcome: str
    partitions: Any
    units: Any
    started_at: datetime
    finished_at: datetime | None
    undoes: str | None


class Backfill(Named):
    partitions: dict[str, int]
    runs: list[PastRun]


class Plan(Answer):
    changes: Any
    total: Any
    partitions: Any
    failures: Any
    examples: Any
    estimate: Any
    seconds: Any


class Written(Answer):
    asset: str
    inserted: int
    updated: int
    deleted: int


class Failure(Answer):
    asset: str
    partition: str | None
    unit: str | None
    message: str


class Run(Answer):
    run_id: str
    job: str
    status: str
    finished: bool
    success: bool
    tables: list[Written]
    failed: list[Failure]
    status_url: str


class Training(Run):
    """The numbers are final once the run has ended."""

    organizations: int
    records_missing: int
    members: int = 0
    videos: int = 0
    records_created: int = 0
    records_already_there: int = 0
    failures: int = 0
    seconds: float = 0


def names(call: Call) -> Any:
    """List the backfills."""
    return {"backfills": [{"name": each.name, "tables": each.assets} for each in call.actions.backfills()]}


def plan(call: Call, body: Choice) -> Any:
    """Show what a run would insert, update, delete or leave unchanged. Writes nothing."""
    report = call.actions.plan(call.path("name"), body.chosen, body.partitions)
    return report.as_json()


def run(call: Call, body: Choice) -> Any:
    """Launch a run."""
    run_id = call.actions.launch(call.path("name"), call.who.name, body.chosen, body.partitions)
    return run_status(call.database, call.actions.runs.find(run_id))


def status(call: Call) -> Any:
    """Show how many partitions need a backfill, and the newest runs."""
    backfill = call.actions.backfill(call.path("name"))
    with postgres_of(backfill).connect() as conn:
        counts = count_by_state(backfill.partition_statuses(conn, more=False))
        runs = RESULTS.newest_runs.dicts(conn, assets=backfill.assets, max_rows=20)
    return {
        "name": backfill.name,
        "tables": backfill.assets,
        "partitions": counts,
        "runs": [camel(row) for row in runs],
    }


def undo(call: Call, body: Undo) -> Any:
    """Show what undoing a run would do. With dryRun false, launch a run that undoes it."""
    name = call.path("name")
    run_id, report = call.actions.preview_undo(name, body.run_id, body.partitions)
    result = {"undoes": run_id, "dryRun": body.dry_run, **report.as_json()}
    if body.dry_run:
        return answer(result)
    return {**result, "runId": call.actions.undo(name, run_id, body.partitions, call.who.name)}


async def train(call: Call, body: Train) -> Any:
    """Create the completion records of one organization, or of all. With waitSeconds, wait for the result."""
    missing, run_id = await run_in_threadpool(_launch_training, call, body.organization_id)
    run = await wait_for_run(call.actions, run_id, body.wait_seconds)
    return await run_in_threadpool(_training_status, call.database, run, missing)


def _launch_training(call: Call, organization_id: str | None) -> tuple[dict[str, int], str]:
    """The number of missing records by organization, and the run that creates them."""
    with call.database() as conn, refused_as(404):
        missing = missing_records(conn, organization_id)
    partitions = [organization_id] if organization_id else []
    which = Which.named if partitions else Which.all
    return missing, call.actions.launch(TRAINING, call.who.name, which, partitions)


def _training_status(database: Database, run: dg.DagsterRun, missing: dict[str, int]) -> Response:
    state = run_status(database, run) | {
        "organizations": len(missing),
        "recordsMissing": sum(missing.values()),
    }
    if not run.is_finished:
        return answer(state, 202)
    with database() as conn:
        return answer(state | camel(run_totals(conn, run.run_id)))


def one_run(call: Call) -> Any:
    """Show a run's status and what it has changed so far."""
    with refused_as(404):
        run = call.actions.runs.find(call.path("run"))
    return run_status(call.database, run)


async def wait_for_run(actions: Actions, run_id: str, seconds: float = inf) -> dg.DagsterRun:
    """Wait for a run to end, for at most `seconds` or the configured limit, and return it as it is then."""
    deadline = time.monotonic() + min(seconds, actions.settings.limits.wait_seconds)
    while True:
        run = await run_in_threadpool(actions.runs.find, run_id)
        if run.is_finished or time.monotonic() > deadline:
            return run
        await asyncio.sleep(_POLL_SECONDS)


def run_status(database: Database, run: dg.DagsterRun) -> dict[str, Any]:
    """A run and what it has changed so far, as JSON."""
    with database() as conn:
        tables = RESULTS.tables.dicts(conn, run_ids=[run.run_id])
        failures = RESULTS.failures.dicts(conn, run_ids=[run.run_id])
    return {
        "runId": run.run_id,
        "job": run.job_name,
        "status": run.status.value.lower(),
        "finished": run.is_finished,
        "success": run.is_success,
        "tables": [{"asset": each.pop("table"), **each} for each in tables],
        "failed": failures[:_MAX_FAILURES],
        "statusUrl": f"/api/runs/{run.run_id}",
    }


_NAME = "/api/backfills/{name}"
routes = [
    Operation("/api/backfills", "backfills", names, gives={200: Backfills}),
    Operation(f"{_NAME}/plan", "backfills", plan, "POST", gives={200: Plan}),
    Operation(f"{_NAME}/run", "backfills", run, "POST", gives={202: Run}),
    Operation(f"{_NAME}/status", "backfills", status, gives={200: Backfill}),
    Operation(f"{_NAME}/undo", "backfills", undo, "POST", gives={202: Plan, 200: Plan}),
    Operation("/api/runs/{run}", "backfills", one_run, gives={200: Run}),
    Operation("/api/training/backfill", "backfills", train, "POST", gives={202: Training, 200: Training}),
]
