"""Commands that only scoring has: score one gym, and explain a member's score."""

from dataclasses import asdict
from typing import Annotated

import typer

from dagster_backfills.cli.database import database
from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.output import Json, print_fields, print_json, print_table, say
from dagster_backfills.cli.plan import show
from dagster_backfills.cli.scoring.days import Scoring
from dagster_backfills.domains.scoring.explain import Explanation, explain
from dagster_backfills.domains.scoring.settings import settings_from
from dagster_backfills.domains.scoring.status import chain_of, parse_day
from dagster_backfills.engine.selection import Which
from dagster_backfills.names import resolve_id

# The callback makes this a command group although it has only one command.
app = typer.Typer(
    no_args_is_help=True,
    help="Commitment scores, churn risk and coach actions of one gym.",
    callback=lambda: None,
)


@app.command()
def gym(
    gym: Annotated[
        str, typer.Argument(metavar="GYM", help="The gym's ID, a unique prefix of it, or its name.")
    ],
    day: Annotated[str, typer.Option("--date", help="The day, YYYY-MM-DD. Defaults to yesterday.")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would change.")] = False,
    json: Json = False,
) -> None:
    """Score the members of one gym for a day. The day remains partial until all members are scored."""
    date = parse_day(day or None)
    with database() as conn:
        gyms = dict(conn.execute("select id, name from scoring.gyms order by id").fetchall())
    gym_id = resolve_id(gym, gyms, "gym")
    if plan:
        report = Scoring().plan(Which.named, [f"{date}"], say, gym_id)
        print_json(report.as_json()) if json else show(report)
        return
    _, code = launch("score_one_gym", {"gym": gym_id, "day": date.isoformat()})
    with database() as conn:
        (scored,) = chain_of(conn, date, 1)
    if json:
        print_json(asdict(scored))
    else:
        print_fields([("day", scored.day), *((link.asset, str(link)) for link in scored.links)])
    raise typer.Exit(code)


def explain_member(member: str, day: str, json: bool) -> None:
    """Explain a member's score: factors with their numbers, time decay, flags, churn risk and action."""
    with database() as conn:
        explanation = explain(conn, member, parse_day(day or None), settings_from().parsed_weights)
    if json:
        print_json(asdict(explanation))
    else:
        _show(explanation)


def _show(e: Explanation) -> None:
    say(f"{e.name} ({e.member}, {e.status}) as of {e.day}")
    rows = [[f.name.replace("_", " "), f.value, f"{f.weight:.2%}", f.because] for f in e.factors]
    print_table(["factor", "0 to 100", "weight", "because"], rows, fold=True)
    action = f"{e.action} for {', '.join(e.coaches)}" if e.action and e.coaches else e.action or "none"
    stored = "not scored yet" if e.stored is None else f"stored: {e.stored}"
    if e.action and not e.coaches:
        action += ", but the member has no coach"
    print_fields(
        [
            ("weighted sum", f"{e.weighted_sum:g}"),
            ("time decay", f"× {e.time_decay:.2f}"),
            ("commitment score", f"{e.score} ({e.band}); {stored}"),
            ("velocity per week", f"{e.velocity_per_week:+.1f}"),
            ("flags", ", ".join(flag.replace("_", " ") for flag in e.flags) or "none"),
            ("churn risk", f"{e.churn_score} ({e.churn_level})"),
            ("action", action),
            ("action because", e.action_because),
        ]
    )
