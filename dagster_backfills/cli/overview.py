"""`backfills list` and `backfills status NAME`: how backfills stand, one line each, and how one's partitions do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from dagster_backfills.cli.backfills import Declared, Named, names
from dagster_backfills.cli.database import glance
from dagster_backfills.cli.errors import explain
from dagster_backfills.cli.output import Json, Wide, print_json, print_table, say
from dagster_backfills.components.loading import declared, declared_by_name
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.engine.controls import read
from dagster_backfills.engine.standing import Standing, counts_of, next_of
from dagster_backfills.names import counted, fold, the_one
from dagster_backfills.redact import redact

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
    counts = counts_of(found)
    up_to_date = counts["all"] - counts["needed"]
    oldest = min((standing.stale_since for standing in found if standing.stale_since), default=None)
    return Overview(
        name,
        dynamic or "partitions",
        counts["all"],
        up_to_date,
        counts["missing"],
        counts["stale"],
        counts["failed"],
        oldest,
    )


def _domain(conn: psycopg.Connection[Any], name: str) -> Overview:
    view = sql.SQL(_VIEW).format(view=sql.Identifier(_SCHEMAS[name], "overview"))
    row = conn.cursor(row_factory=dict_row).execute(view).fetchone()
    return Overview(name, **row or {})


def rows(found: list[Overview]) -> tuple[list[str], list[list[Any]]]:
    """Headers and rows of a table of them, without problems where there are none."""
    columns = len(HEADERS) - (not any(each.problem for each in found))
    return HEADERS[:columns], [list(asdict(each).values())[:columns] for each in found]


def list_(wide: Wide = False, json: Json = False) -> None:
    """Every backfill, and how many of its units are up to date, missing, stale and failed."""
    with glance() as conn:
        found = overviews(conn)
    if json:
        print_json([asdict(each) for each in found])
    else:
        print_table(*rows(found), ids=["backfill"], wide=wide)


def show_partitions(
    backfill: Named, text: str, needed: bool, failed: bool, limit: int | None, wide: bool, json: bool
) -> None:
    """The partitions, or those that a filter leaves, the newest first."""
    with backfill.connect() as conn:
        every = backfill.standings(conn)
        controls = read(conn, backfill.assets)
    found = [each for each in reversed(every) if fold(text) in fold(_words(each))]
    if text and not found:
        the_one(text, {each.partition: each.name for each in every}, "partition")
    found = [each for each in found if (each.needs_backfill or not needed) and (each.failed or not failed)]
    if json:
        print_json([_as_json(each) for each in found[:limit]])
        return
    if found:
        _print(found, limit, wide)
    say(summary(backfill.name, every), *(f"{each.waits}." for each in controls if each.waits))


def summary(name: str, found: Sequence[Standing]) -> str:
    """How many there are, how many need a backfill and why, and which is the next."""
    needed = next_of(list(found))
    said = f"{name}: {counted(len(found), 'partition')}, {len(needed):,} need{'s' * (len(needed) == 1)} a backfill"
    if not needed:
        return f"{said}."
    counts = counts_of(found)
    named = f" ({needed[0].name})" if needed[0].name else ""
    return (
        f"{said}: {counts['missing']:,} missing, {counts['stale']:,} stale, {counts['failed']:,} failed. "
        f"Next: {needed[0].partition or 'all of it'}{named}"
    )


def _words(each: Standing) -> str:
    return " ".join([each.partition, each.name or "", *(v for v in each.more.values() if isinstance(v, str))])


def _as_json(each: Standing) -> dict[str, object]:
    """All that is known of one, flat."""
    said = asdict(each)
    return {**said.pop("more"), **said, "needs_backfill": each.needs_backfill, "state": str(each)}


def _print(found: Sequence[Standing], limit: int | None, wide: bool) -> None:
    """One line a partition. Without names, or stale ones, there is no column for them."""
    more, optional = list(found[0].more), ("name", "stale since")
    headers = ["partition", "name", "state", "stale since", *(column.replace("_", " ") for column in more)]
    rows = [
        [each.partition or "all of it", each.name, str(each), each.stale_since, *map(each.more.get, more)]
        for each in found
    ]
    columns = [each for each in zip(headers, *rows, strict=True) if each[0] not in optional or any(each[1:])]
    headers_left, *rows_left = zip(*columns, strict=True)
    print_table(headers_left, rows_left, limit=limit, ids=["partition"], wide=wide)
