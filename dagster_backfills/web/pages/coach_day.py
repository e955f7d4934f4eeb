"""*Coach's day*: all coaches with counts of their actions, and one coach's actions to tick off."""

from datetime import date
from pathlib import Path

from starlette.responses import Response

from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.pages.visit import Visit, act, go_to, listed, page, readable
from dagster_backfills.web.refusals import Refused, not_found

SQL = load_statements(Path(__file__).with_name("coach_day.sql"))
COACHES, ACTIONS = 50, 100


def shown(visit: Visit) -> Response:
    """All coaches, or with `coach` that coach's actions. The newest day unless `day` is given."""
    coach, after = visit.query("coach"), visit.query("after")
    with visit.database() as conn:
        day = readable(date.fromisoformat, visit.query("day")) or SQL.newest_day(conn)
        chain = next(iter(SQL.chain_of_day.dicts(conn, day=day)), None)
        if not coach:
            coaches = listed(conn, SQL.coaches, COACHES, after, day=day)
            return visit.show("coaches.html", day=day, chain=chain, coaches=coaches)
        who = next(iter(SQL.coach.dicts(conn, coach=coach)), None)
        if who is None:
            raise not_found("such coach")
        [totals] = SQL.totals.dicts(conn, day=day, coach=coach)
        actions = listed(conn, SQL.actions, ACTIONS, after, day=day, coach=coach)
    # Ticking off needs the same right as starting the day's chain.
    return visit.show(
        "coach_day.html", day=day, chain=chain, coach=who, totals=totals, actions=actions, after=after,
        may=visit.may("cron"),
    )  # fmt: skip


def done(visit: Visit) -> Response:
    """Mark an action as done."""
    day, member, coach = _action(visit)
    with visit.database() as conn:
        STATEMENTS.mark_done(conn, day=day, member=member, coach=coach, done_by=visit.who.name)
    return _back(visit, day, coach)


def reopen(visit: Visit) -> Response:
    """Mark an action as open again."""
    day, member, coach = _action(visit)
    with visit.database() as conn:
        STATEMENTS.mark_open(conn, day=day, member=member, coach=coach)
    return _back(visit, day, coach)


def _action(visit: Visit) -> tuple[date, str, str]:
    day = readable(date.fromisoformat, visit.fields.get("day", ""))
    if day is None:
        raise Refused(400, "The form has no valid day.")
    return day, visit.fields.get("member", ""), visit.fields.get("coach", "")


def _back(visit: Visit, day: date, coach: str) -> Response:
    return go_to("/coach", day=day, coach=coach, after=visit.fields.get("after"))


routes = [
    page("/coach", shown),
    act("/coach/done", "cron", done),
    act("/coach/reopen", "cron", reopen),
]
