"""How `backfills explain scoring MEMBER` looks."""

from dataclasses import asdict

from dagster_backfills.cli.domain_runs import database
from dagster_backfills.cli.output import print_fields, print_json, print_table, say
from dagster_backfills.domains.scoring.explain import Explanation, explain
from dagster_backfills.domains.scoring.settings import settings_from
from dagster_backfills.domains.scoring.status import day_of


def explain_member(member: str, day: str, json: bool) -> None:
    """Why a member has its score: factors with their numbers, decay, flags, churn risk and action."""
    with database() as conn:
        explanation = explain(conn, member, day_of(day or None), settings_from().parsed_weights)
    if json:
        print_json(asdict(explanation))
    else:
        _show(explanation)


def _show(e: Explanation) -> None:
    say(f"{e.name} ({e.member}, {e.status}) as of {e.day}")
    rows = [[f.name.replace("_", " "), f.value, f"{f.weight:.2%}", f.because] for f in e.factors]
    print_table(["factor", "0 to 100", "weight", "because"], rows, fold=True)
    action = f"{e.action} for {', '.join(e.coaches)}" if e.action and e.coaches else e.action or "none"
    stored = "not scored yet" if e.stored is None else f"{e.stored} is stored"
    if e.action and not e.coaches:
        action += ", but the member has no coach"
    print_fields(
        [
            ("weighted sum", f"{e.weighted_sum:g}"),
            ("time decay", f"× {e.time_decay:.2f}"),
            ("commitment score", f"{e.score} ({e.band}); {stored}"),
            ("velocity a week", f"{e.velocity_per_week:+.1f}"),
            ("flags", ", ".join(flag.replace("_", " ") for flag in e.flags) or "none"),
            ("churn risk", f"{e.churn_score} ({e.churn_level})"),
            ("action", action),
            ("action because", e.action_because),
        ]
    )
