"""`backfills scoring`: score a day, explain a member's score, and see where the chain stands."""

from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dagster_backfills.cli.domain_runs import database, launch
from dagster_backfills.cli.errors import FAILURES, OK
from dagster_backfills.cli.output import print_json, print_table, say
from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.domains.scoring.settings import setting_at_load, settings_from
from dagster_backfills.domains.scoring.status import ChainDay, chain_of
from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    from dagster_backfills.domains.scoring.explain import Explanation

app = typer.Typer(no_args_is_help=True, help="Commitment, churn risk and coach actions, day by day.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
Day = Annotated[str, typer.Option("--date", help="The day, as YYYY-MM-DD; yesterday without it.")]

_JOB = "scoring_chain_job"
_OPS = ("scoring__commitment_scores", "scoring__churn_risk_scores", "scoring__coach_actions")


@app.command()
def run(
    day: Day = "",
    gym: Annotated[str, typer.Option(help="Only the members of this gym, by its id.")] = "",
    json: Json = False,
) -> None:
    """Score a day: all three links in a row, as of that day. Running it again writes only what differs."""
    chosen = _day(day)
    with database() as conn:
        if gym and conn.execute("select 1 from scoring.gyms where id = %s", [gym]).fetchone() is None:
            raise UserError(f"There is no gym {gym!r}.", "Give the id of a row of scoring.gyms.")
    config = {"ops": {op: {"config": {"gym": gym}} for op in _OPS}} if gym else None
    _, code = launch(_JOB, config, {"dagster/partition": chosen.isoformat()})
    days = _show_chain(chosen, 1, json)
    broken = any(link.failed or link.outcome != "complete" for link in days[0].links)
    # One gym alone leaves the day partial, which is no failure of this command.
    raise typer.Exit(code or (FAILURES if broken and not gym else OK))


@app.command()
def explain(
    member: Annotated[str, typer.Argument(help="The member's id.")], day: Day = "", json: Json = False
) -> None:
    """Why a member has its score: factors with their numbers, decay, flags, churn risk and action."""
    # Of all commands this one computes, with pandas.
    from dagster_backfills.domains.scoring.explain import explain as explained

    with database() as conn:
        explanation = explained(conn, member, _day(day), settings_from().parsed_weights)
    if json:
        print_json(asdict(explanation))
    else:
        _print_explanation(explanation)


@app.command()
def status(
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days back.")] = 7, json: Json = False
) -> None:
    """The chain of the last days, newest first: what is complete, partial, failed or missing, and why."""
    _show_chain(_day(""), days, json)


def _day(text: str) -> date:
    """The day that was asked for. Raises UserError for what is no day, or not over yet."""
    newest = newest_day(datetime.now(UTC).date())
    if not text:
        return newest
    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise UserError(f"{text!r} is not a day.", "Write it as YYYY-MM-DD, such as 2026-06-30.") from error
    first = setting_at_load("first_day")
    if not first <= day <= newest:
        raise UserError(
            f"{day} can't be scored: the days are {first} to {newest}.",
            "A day can be scored once it is over (UTC).",
        )
    return day


def _show_chain(newest: date, days: int, json: bool) -> list[ChainDay]:
    with database() as conn:
        chain = chain_of(conn, newest, days)
    if json:
        print_json([asdict(each) for each in chain])
    else:
        rows = [[each.day, *each.links, each.remark] for each in chain]
        print_table(["day", "commitment", "churn risk", "coach actions", "remark"], rows)
    return chain


def _print_explanation(e: "Explanation") -> None:
    say(f"{e.name} ({e.member}, {e.status}) as of {e.day}")
    rows = [[f.name.replace("_", " "), f.value, f"{f.weight:.2%}", f.because] for f in e.factors]
    print_table(["factor", "0 to 100", "weight", "because"], rows)
    action = f"{e.action} for {', '.join(e.coaches)}" if e.action and e.coaches else e.action or "none"
    stored = "not scored yet" if e.stored is None else f"{e.stored} is stored"
    if e.action and not e.coaches:
        action += ", but the member has no coach"
    print_table(
        ["result", "value"],
        [
            ["weighted sum", f"{e.weighted_sum:g}"],
            ["time decay", f"× {e.time_decay:.2f}"],
            ["commitment score", f"{e.score} ({e.band}); {stored}"],
            ["velocity a week", f"{e.velocity_per_week:+.1f}"],
            ["flags", ", ".join(flag.replace("_", " ") for flag in e.flags) or "none"],
            ["churn risk", f"{e.churn_score} ({e.churn_level})"],
            ["action", action],
            ["action because", e.action_because],
        ],
    )
