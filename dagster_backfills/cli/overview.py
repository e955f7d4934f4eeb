"""`backfills list`: one line a backfill, how many partitions it has and how many of them are in which state."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
import typer
from psycopg import sql
from psycopg.rows import dict_row

from dagster_backfills.cli.backfills import Declared, names
from dagster_backfills.cli.domain_runs import glance
from dagster_backfills.cli.errors import explain
from dagster_backfills.cli.output import Json, Wide, print_json, print_table
from dagster_backfills.components.loading import declared, declared_by_name
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.redact import redact

app = typer.Typer()
# Each domain that is no declaration has a view of this name and with these columns in its schema.
_SCHEMAS = {"scoring": "scoring", "kintell": "kintell", "queue": "jobs"}
_VIEW = "select of_what, units, up_to_date, missing, stale, failed, oldest_stale from {view}"
HEADERS = ["backfill", "of", "units", "up to date", "missing", "stale", "failed", "oldest change", "problem"]


@dataclass(frozen=True)
class Overview:
    """One backfill: its units (cohorts, days, jobs …), and how many of them are in which state."""

    backfill: str
    of_what: str | None = None
    units: int | None = None
    up_to_date: int | None = None
    missing: int | None = None
    stale: int | None = None
    failed: int | None = None
    oldest_stale: Any = None
    problem: str | None = None


def overviews(conn: psycopg.Connection[Any]) -> list[Overview]:
    """All of them. One that can't be looked at says why."""
    folders = declared_by_name(project_defs(Path.cwd()))
    found = []
    for name in names(Path.cwd()):
        try:
            found.append(_declared(name, folders[name]) if name in folders else _domain(conn, name))
        except Exception as error:  # of one declaration: the others are still worth having
            found.append(Overview(name, problem=redact(explain(error)[1])))
    return found


def _declared(name: str, folder: Path) -> Overview:
    each = Declared(declared(folder))
    with each.connect() as conn:
        found = each.standings(conn, more=False)
    dynamic = each.backfill.declared.partitions and each.backfill.declared.partitions.dynamic
    return Overview(
        name,
        dynamic or "partitions",
        len(found),
        sum(not standing.needs_backfill for standing in found),
        sum(standing.missing for standing in found),
        sum(bool(standing.stale_since) for standing in found),
        sum(bool(standing.failed) for standing in found),
        min((standing.stale_since for standing in found if standing.stale_since), default=None),
    )


def _domain(conn: psycopg.Connection[Any], name: str) -> Overview:
    view = sql.SQL(_VIEW).format(view=sql.Identifier(_SCHEMAS[name], "overview"))
    row = conn.cursor(row_factory=dict_row).execute(view).fetchone()
    return Overview(name, **row or {})


def rows(found: list[Overview]) -> tuple[list[str], list[list[Any]]]:
    """Headers and rows of a table of them, without problems where there are none."""
    columns = len(HEADERS) - (not any(each.problem for each in found))
    return HEADERS[:columns], [list(asdict(each).values())[:columns] for each in found]


@app.command("list")
def list_(wide: Wide = False, json: Json = False) -> None:
    """Every backfill, and how many of its units are up to date, missing, stale and failed."""
    with glance() as conn:
        found = overviews(conn)
    if json:
        print_json([asdict(each) for each in found])
    else:
        print_table(*rows(found), ids=["backfill"], wide=wide)
