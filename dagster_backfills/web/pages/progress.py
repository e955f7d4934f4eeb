"""*Progress*: cohorts by school with their averages, and a cohort's students. Read only: runs compute them.

Ids are the source systems' own texts, so they stand in the query of an address, which takes any.
"""

from itertools import groupby
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response

from dagster_backfills.names import fold
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.web.pages.visit import Visit, page, rows

SQL = load_statements(Path(__file__).with_name("progress.sql"))
COHORTS, STUDENTS = 50, 100


def cohorts(visit: Visit) -> Response:
    """Cohorts by school; with `find`, those whose name has it."""
    find, after = visit.query("find"), visit.query("after") or None
    with visit.database() as conn:
        # Folded here and not in SQL: what `lower()` knows of other alphabets depends on the database's locale.
        named = rows(conn, SQL, "names") if find else []
        ids = [row["id"] for row in named if fold(find) in fold(row["name"])] if find else None
        found = rows(conn, SQL, "cohorts", ids=ids, after=after, most=COHORTS + 1)
    listed = found[:COHORTS]
    schools = [
        (name, list(group))
        for (_, name), group in groupby(listed, lambda row: (row["school_id"], row["school_name"]))
    ]
    return visit.show(
        "cohorts.html", schools=schools, last=listed[-1]["id"] if listed else None, find=find,
        more=len(found) > COHORTS, first=after is None,
    )  # fmt: skip


def cohort(visit: Visit) -> Response:
    """One cohort and its students."""
    wanted, after = visit.query("id"), visit.query("after") or None
    with visit.database() as conn:
        found = rows(conn, SQL, "cohort", cohort=wanted)
        if not found:
            raise HTTPException(404, "There is no such cohort.")
        students = rows(conn, SQL, "students", cohort=wanted, after=after, most=STUDENTS + 1)
    return visit.show(
        "cohort.html", cohort=found[0], students=students[:STUDENTS], more=len(students) > STUDENTS,
        first=after is None,
    )  # fmt: skip


routes = [page("/progress", cohorts), page("/progress/cohort", cohort)]
