"""`backfills list` and `backfills status NAME`: one line per backfill, or per partition of one."""

import sys
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
from dagster_backfills.engine.partition_status import PartitionStatus, count_by_state, needing_backfill
from dagster_backfills.names import counted, fold, resolve_id
from dagster_backfills.redact import redact

# Domains without a declaration have a view `overview` with these columns in their schema.
_SCHEMAS = {"scoring": "scoring", "kintell": "kintell", "queue": "jobs"}
_VIEW = "select of_what, units, up_to_date, missing, stale, failed, oldest_stale from {view}"
_WHOLE = "the whole table"
HEADERS = ["backfill", "of", "units", "up to date", "missing", "stale", "failed", "oldest change", "problem"]


@dataclass(frozen=True)
class Overview:
    """One backfill and the number of its units (cohorts, days, jobs …) in each state."""

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
    """All backfills. If one can't be read, its `problem` says why."""
    folders = declared_by_name(project_defs(Path.cwd()))
    result = []
    for name in names(Path.cwd()):
        try:
            result.append(_declared(name, folders[name]) if name in folders else _domain(conn, name))
        except Exception as error:  # the others are still shown
            result.append(Overview(name, problem=redact(explain(error)[1])))
    return result


def _declared(name: str, folder: Path) -> Overview:
    backfill = Declared(declared(folder))
    with backfill.connect() as conn:
        statuses = backfill.partition_statuses(conn, more=False)
    dynamic = (partitions := backfill.backfill.declared.partitions) and partitions.dynamic
    counts = count_by_state(statuses)
    up_to_date = counts["all"] - counts["needed"]
    oldest = min((each.stale_since for each in statuses if each.stale_since), default=None)
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


def rows(backfills: list[Overview]) -> tuple[list[str], list[list[Any]]]:
    """The headers and rows of the table. Problems have a column only in a pipe, and only if there are any."""
    with_problems = not sys.stdout.isatty() and any(each.problem for each in backfills)
    columns = len(HEADERS) - (not with_problems)
    return HEADERS[:columns], [list(asdict(each).values())[:columns] for each in backfills]


def problems(backfills: list[Overview]) -> list[str]:
    """On a terminal, where a column would not fit: a line for each backfill that can't be read."""
    if not sys.stdout.isatty():
        return []
    return [f"{each.backfill}: {each.problem}" for each in backfills if each.problem]


def list_(wide: Wide = False, json: Json = False) -> None:
    """List all backfills with the number of units that are up to date, missing, stale and failed."""
    with glance() as conn:
        backfills = overviews(conn)
    if json:
        print_json([asdict(each) for each in backfills])
    else:
        print_table(*rows(backfills), ids=["backfill"], wide=wide)
        say(*problems(backfills))


def show_partitions(
    backfill: Named, text: str, needed: bool, failed: bool, limit: int | None, wide: bool, json: bool
) -> None:
    """Show the partitions that match the filters, newest first."""
    with backfill.connect() as conn:
        statuses = backfill.partition_statuses(conn)
        controls = read(conn, backfill.assets)
    matches = [each for each in reversed(statuses) if fold(text) in fold(_searchable(each))]
    if text and not matches:
        resolve_id(text, {each.partition: each.name for each in statuses}, "partition")
    shown = [each for each in matches if (each.needs_backfill or not needed) and (each.failed or not failed)]
    if json:
        print_json([_as_json(each) for each in shown[:limit]])
        return
    if shown:
        _print(shown, limit, wide)
    say(summary(backfill.name, statuses), *(f"{each.waits}." for each in controls if each.waits))


def summary(name: str, statuses: Sequence[PartitionStatus]) -> str:
    """How many partitions there are, how many need a backfill and why, and which comes next."""
    needed = needing_backfill(list(statuses))
    line = f"{name}: {counted(len(statuses), 'partition')}, {len(needed):,} need{'s' * (len(needed) == 1)} a backfill"
    if not needed:
        return f"{line}."
    counts = count_by_state(statuses)
    named = f" ({needed[0].name})" if needed[0].name else ""
    return (
        f"{line}: {counts['missing']:,} missing, {counts['stale']:,} stale, {counts['failed']:,} failed. "
        f"Next: {needed[0].partition or _WHOLE}{named}"
    )


def _searchable(each: PartitionStatus) -> str:
    return " ".join([each.partition, each.name or "", *(v for v in each.more.values() if isinstance(v, str))])


def _as_json(each: PartitionStatus) -> dict[str, object]:
    """All fields in one flat object."""
    fields = asdict(each)
    return {**fields.pop("more"), **fields, "needs_backfill": each.needs_backfill, "state": str(each)}


def _print(statuses: Sequence[PartitionStatus], limit: int | None, wide: bool) -> None:
    """One line per partition. The columns `name` and `stale since` are left out if they are empty."""
    more, optional = list(statuses[0].more), ("name", "stale since")
    headers = ["partition", "name", "state", "stale since", *(column.replace("_", " ") for column in more)]
    rows = [
        [each.partition or _WHOLE, each.name, str(each), each.stale_since, *map(each.more.get, more)]
        for each in statuses
    ]
    columns = [each for each in zip(headers, *rows, strict=True) if each[0] not in optional or any(each[1:])]
    shown_headers, *shown_rows = zip(*columns, strict=True)
    print_table(shown_headers, shown_rows, limit=limit, ids=["partition"], wide=wide)
