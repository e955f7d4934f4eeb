"""`backfills scoring gym`: one gym alone. For all else, the verbs of every backfill."""

from dataclasses import asdict
from typing import Annotated

import typer

from dagster_backfills.cli.domain_runs import database, launch
from dagster_backfills.cli.output import Json, print_fields, print_json, say
from dagster_backfills.cli.plan import show
from dagster_backfills.cli.scoring.days import JOB, Scoring
from dagster_backfills.domains.scoring.status import chain_of, day_of
from dagster_backfills.engine.selection import Which
from dagster_backfills.names import the_one

app = typer.Typer(no_args_is_help=True, help="Commitment, churn risk and coach actions: one gym alone.")
_OPS = ("scoring__commitment_scores", "scoring__churn_risk_scores", "scoring__coach_actions")


@app.callback()
def _group() -> None:
    """Commands of scoring's own."""


@app.command()
def gym(
    gym: Annotated[str, typer.Argument(metavar="GYM", help="Its id, how that begins, or its name.")],
    day: Annotated[str, typer.Option("--date", help="The day, as YYYY-MM-DD; yesterday without it.")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would change.")] = False,
    json: Json = False,
) -> None:
    """Score the members of one gym alone, as of a day. The day itself stays partial, until all are scored."""
    chosen = day_of(day or None)
    with database() as conn:
        gyms = dict(conn.execute("select id, name from scoring.gyms order by id").fetchall())
    found = the_one(gym, gyms, "gym")
    if plan:
        report = Scoring().plan(Which.named, [f"{chosen}"], say, found)
        print_json(report.as_json()) if json else show(report)
        return
    config = {"ops": {op: {"config": {"gym": found}} for op in _OPS}}
    _, code = launch(JOB, config, {"dagster/partition": chosen.isoformat()})
    with database() as conn:
        (scored,) = chain_of(conn, chosen, 1)
    if json:
        print_json(asdict(scored))
    else:
        print_fields([("day", scored.day), *((link.asset, str(link)) for link in scored.links)])
    raise typer.Exit(code)
