"""`backfills cancel NAME`: the runs of a backfill that have not ended, stopped. What they committed stays."""

import os
from collections.abc import Collection
from typing import Any

import dagster as dg

from dagster_backfills.cli.backfills import Name, Named, named
from dagster_backfills.cli.output import Json, Yes, confirm, print_json, say
from dagster_backfills.engine import audit
from dagster_backfills.identity import system_user
from dagster_backfills.instance.dagster_home import dagster_environment

_AT_WORK = [
    dg.DagsterRunStatus[name]
    for name in ("QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING")
]
# Runs put together in some other way are known by what they write.
_WRITING = "select run_id from backfill.runs where finished_at is null and assets && %s::text[]"


def cancel(
    name: Name,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Stop the runs of a backfill, queued or at work, and Dagster's backfills of it. What is committed stays."""
    backfill = named(name, "cancel")
    os.environ.update(dagster_environment())
    with dg.DagsterInstance.get() as instance, backfill.connect() as conn:
        writing = {row[0] for row in conn.execute(_WRITING, [list(backfill.assets)])}
        conn.rollback()
        backfills, runs = _backfills_of(instance, backfill), _runs_of(instance, backfill, writing)
        ids = [*(each.backfill_id for each in backfills), *(run.run_id for run in runs)]
        if ids:
            confirm(f"Stop {len(runs)} runs and {len(backfills)} backfills of {backfill.name}?", yes)
            domains = audit.domains_of(list(backfill.assets))
            audit.record(conn, audit.Entry(system_user(), "cancel", backfill.name, domains, "done", ids))
            conn.commit()
        # The daemon would launch more.
        for each in backfills:
            instance.update_backfill(each.with_status(type(each.status)["CANCELING"]))
        for run in runs:
            instance.run_coordinator.cancel_run(run.run_id)
    if json:
        print_json(
            {"backfills": [each.backfill_id for each in backfills], "runs": [run.run_id for run in runs]}
        )
    elif not ids:
        say(f"No run of {backfill.name} is at work or waits.")
    else:
        say(
            *(f"Backfill {each.backfill_id} launches nothing more." for each in backfills),
            *(f"Run {run.run_id} is told to stop; what it committed stays." for run in runs),
        )


def _runs_of(instance: dg.DagsterInstance, backfill: Named, writing: Collection[str]) -> list[dg.DagsterRun]:
    def is_ours(run: dg.DagsterRun) -> bool:
        chosen = {key.to_user_string() for key in run.asset_selection or ()}
        ours = run.job_name == backfill.job or not chosen.isdisjoint(backfill.assets)
        return ours or run.run_id in writing

    return [run for run in instance.get_runs(dg.RunsFilter(statuses=_AT_WORK)) if is_ours(run)]


def _backfills_of(instance: dg.DagsterInstance, backfill: Named) -> list[Any]:
    def is_ours(each: Any) -> bool:
        chosen = {key.to_user_string() for key in each.asset_selection or ()}
        return each.status.name == "REQUESTED" and not chosen.isdisjoint(backfill.assets)

    return [each for each in instance.get_backfills() if is_ours(each)]
