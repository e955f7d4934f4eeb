"""*Progress*: cohorts by school with their averages, and a cohort's students. Read only: runs compute them.

Ids are the source systems' own texts, so they stand in the query of an address, which takes any.
"""

from pathlib import Path

from starlette.responses import Response

from dagster_backfills.names import fold
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.pages.visit import Visit, listed, page
from dagster_backfills.web.refusals import not_found

SQL = load_statements(Path(__file__).with_name("progress.sql"))
COHORTS, STUDENTS = 50, 100


def cohorts(visit: Visit) -> Response:
    """Cohorts by school; with `find`, those whose name has it."""
    find = visit.query("find")
    with visit.database() as conn:
        # Folded here and not in SQL: what `lower()` knows of other alphabets depends on the database's locale.
        named = SQL.names.dicts(conn) if find else []
        ids = [row["id"] for row in named if fold(find) in fold(row["name"])] if find else None
        found = listed(conn, SQL.cohorts, COHORTS, visit.query("after"), ids=ids)
    return visit.show("cohorts.html", cohorts=found, find=find)


def cohort(visit: Visit) -> Response:
    """One cohort and its students."""
    wanted = visit.query("id")
    with visit.database() as conn:
        found = SQL.cohort.dicts(conn, cohort=wanted)
        if not found:
            raise not_found("such cohort")
        students = listed(conn, SQL.students, STUDENTS, visit.query("after"), cohort=wanted)
    return visit.show("cohort.html", cohort=found[0], students=students)


routes = [page("/progress", cohorts), page("/progress/cohort", cohort)]
