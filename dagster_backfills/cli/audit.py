"""`backfills audit`: the audit log, newest first."""

import sys
from typing import Annotated, Any

import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.output import Json, print_json, print_table, say
from dagster_backfills.engine.audit import latest


def audit(
    who: Annotated[str | None, typer.Option(help="Only requests of this user.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of entries.")] = 20,
    json: Json = False,
) -> None:
    """List who launched, undid, paused or changed what, and whose requests were refused."""
    with database() as conn:
        entries = latest(conn, limit, who)
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


def _lines(entry: dict[str, Any]) -> list[str]:
    """An entry as shown on a terminal: who did what, then its target and details."""
    head = f"{entry['at']:%Y-%m-%d %H:%M:%S} UTC  {entry['who']}  {entry['action']}: {entry['outcome']}"
    more = [entry["target"], entry["detail"], f"runs {', '.join(entry['runs'])}" if entry["runs"] else ""]
    return [head, *(f"    {line}" for line in more if line)]
