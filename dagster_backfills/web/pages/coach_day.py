"""*Coach's day*: the coaches of a day, and one coach's actions with their reasons, done or not."""

from datetime import date
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from dagster_backfills.domains.scoring.statements import STATEMENTS
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.pages.rendering import day_of
from dagster_backfills.web.pages.visit import Visit, act, go_to, page, rows

SQL = load_statements(Path(__file__).with_name("coach_day.sql"))
COACHES, ACTIONS = 50, 100


def shown(visit: Visit) -> Response:
    """With `coach`, the actions of that one; else every coach with counts. The newest day, unless one is given."""
    given, coach, after = visit.query("day"), visit.query("coach"), visit.query("after") or None
    with visit.database() as conn:
        day = day_of(given) or SQL.newest_day(conn)
        chain = rows(conn, SQL, "chain_of_day", day=day)
        shared: dict[str, Any] = {
            "day": day,
            "chain": chain[0] if chain else None,
            "first": after is None,
            "coach": None,
        }
        if not coach:
            found = rows(conn, SQL, "coaches", day=day, after=after, most=COACHES + 1)
            return visit.show("coaches.html", coaches=found[:COACHES], more=len(found) > COACHES, **shared)
        who = rows(conn, SQL, "coach", coach=coach)
        if not who:
            raise HTTPException(404, "There is no such coach.")
        [totals] = rows(conn, SQL, "totals", day=day, coach=coach)
        found = rows(conn, SQL, "actions", day=day, coach=coach, after=after, most=ACTIONS + 1)
    shared["coach"] = who[0]
    # Whoever may start the day's chain may also say what is done.
    return visit.show(
        "coach_day.html", actions=found[:ACTIONS], more=len(found) > ACTIONS, totals=totals, after=after,
        may=visit.may("cron"), **shared,
    )  # fmt: skip


def done(visit: Visit) -> Response:
    """Tick an action off."""
    day, member, coach = _action(visit)
    with visit.database() as conn:
        STATEMENTS.mark_done(conn, day=day, member=member, coach=coach, done_by=visit.who.name)
    return _back(visit, day, coach)


def reopen(visit: Visit) -> Response:
    """It was not done after all."""
    day, member, coach = _action(visit)
    with visit.database() as conn:
        STATEMENTS.mark_open(conn, day=day, member=member, coach=coach)
    return _back(visit, day, coach)


def _action(visit: Visit) -> tuple[date, str, str]:
    day = day_of(visit.fields.get("day", ""))
    if day is None:
        raise HTTPException(400, "The form names no day.")
    return day, visit.fields.get("member", ""), visit.fields.get("coach", "")


def _back(visit: Visit, day: date, coach: str) -> Response:
    after = visit.fields.get("after", "")
    return go_to("/coach", day=day.isoformat(), coach=coach, **({"after": after} if after else {}))


routes = [
    page("/coach", shown),
    act("/coach/done", "cron", done),
    act("/coach/reopen", "cron", reopen),
]
