"""`backfills audit`: who asked for what, the newest first."""

from typing import Annotated

import typer

from dagster_backfills.cli.output import print_json, print_table, say
from dagster_backfills.cli.plan import database_of
from dagster_backfills.engine.audit import latest

app = typer.Typer()


@app.command()
def audit(
    who: Annotated[str | None, typer.Option(help="Only what this user asked for.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")
    ] = False,
) -> None:
    """Who launched, undid, paused or changed what, and who was refused it."""
    with database_of().connect() as conn:
        entries = latest(conn, limit, who)
    if json:
        print_json(entries)
        return
    if not entries:
        say("Nobody has asked for anything yet.")
        return
    print_table(
        ("when", "who", "what", "of", "outcome", "runs"),
        [
            (e["at"], e["who"], e["action"], e["target"], e["outcome"], " ".join(r[:8] for r in e["runs"]))
            for e in entries
        ],
    )
