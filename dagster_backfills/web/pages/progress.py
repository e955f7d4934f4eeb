"""*Progress*: cohorts by school with their averages, and a cohort's students. Read-only: runs compute the numbers.

IDs are arbitrary texts of the source systems, so they are passed in the query string, not in the path.
"""

from pathlib import Path

from starlette.responses import Response

from dagster_backfills.names import fold
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.pages.visit import Visit, listed, page
from dagster_backfills.web.refusals import not_found

SQL = load_statements(Path(__file__).with_name("progress.sql"))
COHORTS, STUDENTS = 50, 100


def overview(visit: Visit) -> Response:
    """Cohorts by school. With `find`: those whose name contains it."""
    find = visit.query("find")
    with visit.database() as conn:
        # Case is folded here, because `lower()` in SQL depends on the database's locale.
        named = SQL.names.dicts(conn) if find else []
        ids = [row["id"] for row in named if fold(find) in fold(row["name"])] if find else None
        cohorts = listed(conn, SQL.cohorts, COHORTS, visit.query("after"), ids=ids)
    return visit.show("cohorts.html", cohorts=cohorts, find=find)


def cohort(visit: Visit) -> Response:
    """One cohort and its students."""
    cohort_id = visit.query("id")
    with visit.database() as conn:
        rows = SQL.cohort.dicts(conn, cohort=cohort_id)
        if not rows:
            raise not_found("such cohort")
        students = listed(conn, SQL.students, STUDENTS, visit.query("after"), cohort=cohort_id)
    return visit.show("cohort.html", cohort=rows[0], students=students)


routes = [page("/progress", overview), page("/progress/cohort", cohort)]
