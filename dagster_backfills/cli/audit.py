"""`backfills audit`: the audit log, newest first."""

import sys
from typing import Annotated, Any

import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.errors import explain
from dagster_backfills.cli.instance import runs_of
from dagster_backfills.cli.output import Json, print_json, print_table, say
from dagster_backfills.engine.audit import latest
from dagster_backfills.redact import redact


def audit(
    who: Annotated[str | None, typer.Option(help="Only requests of this user.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of entries.")] = 20,
    json: Json = False,
) -> None:
    """List who launched, undid, paused or changed what, and whose requests were refused."""
    with database() as conn:
        entries = latest(conn, limit, who)
    add_results(entries)
    if json:
        print_json(entries)
        return
    if not entries:
        say(f"No requests{f' by {who}' if who else ''} have been recorded.")
        return
    if sys.stdout.isatty():
        for entry in entries:
            typer.echo("\n".join(_lines(entry)))
        return
    print_table(
        ("when", "who", "what", "of", "outcome", "runs", "detail"),
        [
            [
                *(e[name] for name in ("at", "who", "action", "target", "outcome")),
                " ".join(e["runs"]),
                e["detail"],
            ]
            for e in entries
        ],
    )


def add_results(entries: list[dict[str, Any]]) -> None:
    """Replace `started` by what became of the launched run, as Dagster records it: the command may have been killed."""
    launched = [entry for entry in entries if entry["outcome"] == "started" and entry["runs"]]
    if not launched:
        return
    try:
        known = runs_of(run_id for entry in launched for run_id in entry["runs"])
    except Exception as error:  # the audit log itself can be read
        say(f"What became of launched runs is unknown: {redact(explain(error)[1])}")
        return
    for entry in launched:
        runs = [known.get(run_id) for run_id in entry["runs"]]
        if any(run and not run.is_finished for run in runs):
            continue
        ends = [run.status.value if run else "deleted" for run in runs]
        entry["outcome"] = "done" if set(ends) == {"SUCCESS"} else "failed"
        entry["detail"] = "" if set(ends) == {"SUCCESS"} else f"The run ended with status {', '.join(ends)}."


def _lines(entry: dict[str, Any]) -> list[str]:
    """An entry as shown on a terminal: who did what, then its target and details."""
    head = f"{entry['at']:%Y-%m-%d %H:%M:%S} UTC  {entry['who']}  {entry['action']}: {entry['outcome']}"
    more = [entry["target"], entry["detail"], f"runs {', '.join(entry['runs'])}" if entry["runs"] else ""]
    return [head, *(f"    {line}" for line in more if line)]
