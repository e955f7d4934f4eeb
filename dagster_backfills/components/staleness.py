"""Triggers that mark partitions stale when a source table changes: their DDL, whether they are there, their removal.

A trigger runs once a statement, over the changed rows, with its owner's rights: whoever writes the source needs no
right on anything of ours. Not here: what is done about what is stale.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dagster_backfills.components.declaration import split_table
from dagster_backfills.errors import UserError

if TYPE_CHECKING:
    from dagster_backfills.components.building import Backfill

_EVENTS = {
    "insert": "referencing new table as new_rows",
    "update": "referencing old table as old_rows new table as new_rows",
    "delete": "referencing old table as old_rows",
}
# Rows that an update leaves as they were are no change. They are compared as text: not every type has an equality.
_CHANGED = {
    "insert": "select * from new_rows",
    "update": """select o.* from old_rows as o where not exists (select from new_rows as n where n::text = o::text)
        union all
        select n.* from new_rows as n where not exists (select from old_rows as o where o::text = n::text)""",
    "delete": "select * from old_rows",
}
# Of a calendar: the key of the partition that a point in time, or a date, lies in.
_CALENDAR = {
    "hourly": "to_char({at}, 'YYYY-MM-DD-HH24:00')",
    "daily": "to_char({at}, 'YYYY-MM-DD')",
    "weekly": "to_char({at} - make_interval(days => extract(dow from {at})::integer), 'YYYY-MM-DD')",
    "monthly": "to_char({at}, 'YYYY-MM-01')",
}
_FUNCTION = """create or replace function {function}() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set timezone = 'UTC'
as {body};"""
_BODY = """
declare
    keys text[];
begin
    {branches}
    end if;
    perform backfill.mark_stale(asset, keys) from unnest({assets}::text[]) as asset;
    return null;
end
"""
_BRANCH = """{word} tg_op = '{event}' then
        keys := array(
            with changed_rows as ({changed})
            select distinct k::text from ({select}) as q (k) where k is not null
        );"""


@dataclass(frozen=True)
class SourceTriggers:
    """The triggers of one backfill on one of its source tables."""

    backfill: "Backfill"
    source: str
    by: str

    @property
    def name(self) -> str:
        return f"backfills_{self.backfill.name}"[:50]

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(*split_table(self.source))

    @property
    def function(self) -> sql.Identifier:
        return sql.Identifier(
            "backfill", f"{self.backfill.name} of {'.'.join(split_table(self.source))}"[:63]
        )

    def select(self) -> str:
        """The keys of `changed_rows`, as SQL."""
        statement = self.backfill.statements.get(self.by)
        if statement is not None:
            return statement.sql.replace("%%", "%")
        partitions = self.backfill.declared.partitions
        if partitions is None:
            return "select ''"
        column = sql.Identifier("c", self.by).as_string(None)
        for kind, key in _CALENDAR.items():
            if getattr(partitions, kind) is not None:
                zone = sql.Literal(partitions.timezone).as_string(None)
                return f"select {key.format(at=f'({column}::timestamptz at time zone {zone})')} from changed_rows as c"  # noqa: S608
        return f"select {column} from changed_rows as c"  # noqa: S608

    def create(self) -> str:
        """The DDL that makes them, or makes them anew."""
        select = self.select()
        branches = [
            _BRANCH.format(
                word="elsif" if number else "if", event=event.upper(), changed=_CHANGED[event], select=select
            )
            for number, event in enumerate(_EVENTS)
        ]
        assets = sql.Literal(self.backfill.assets).as_string(None)
        body = _BODY.format(branches="\n    ".join(branches), assets=assets)
        parts = [
            sql.SQL(_FUNCTION).format(function=self.function, body=sql.Literal(body)),
            *(
                sql.SQL(
                    "create or replace trigger {name} after {event} on {table}\n{rows}\n"
                    "for each statement execute function {function}();"
                ).format(
                    name=sql.Identifier(f"{self.name}_{event}"),
                    event=sql.SQL(event),
                    table=self.table,
                    rows=sql.SQL(rows),
                    function=self.function,
                )
                for event, rows in _EVENTS.items()
            ),
        ]
        return "\n\n".join(part.as_string(None) for part in parts)

    def drop(self) -> str:
        """The DDL that takes them away without a trace."""
        triggers = [
            sql.SQL("drop trigger if exists {} on {};").format(
                sql.Identifier(f"{self.name}_{event}"), self.table
            )
            for event in _EVENTS
        ]
        gone = [*triggers, sql.SQL("drop function if exists {}();").format(self.function)]
        return "\n".join(part.as_string(None) for part in gone)

    def check(self, conn: psycopg.Connection[Any]) -> None:
        """Raise UserError where the triggers could be made and would then fail: the keys are asked of no row."""
        try:
            with conn.transaction(force_rollback=True):
                conn.execute("set local search_path = pg_catalog")  # as the triggers have it
                conn.execute(
                    sql.SQL(
                        "with changed_rows as (select * from {} limit 0) select k::text from ({}) as q (k)"
                    ).format(self.table, sql.SQL(self.select()))
                )
        except psycopg.Error as error:
            raise UserError(
                f"stale_when {self.source}: {error.diag.message_primary or error}",
                hint=f"{self.by!r} must be a column of it, or a statement that gives the keys of `changed_rows`.",
            ) from error

    def present(self, conn: psycopg.Connection[Any]) -> bool:
        """Whether all of them are there, enabled, and as they would be made now."""
        row = conn.execute(
            "select count(*) from pg_trigger as t inner join pg_proc as p on t.tgfoid = p.oid"
            " where t.tgrelid = to_regclass(%s) and t.tgenabled in ('O', 'A') and t.tgname = any(%s)"
            " and strpos(%s, p.prosrc) > 0",
            [
                self.table.as_string(None),
                [f"{self.name}_{event}" for event in _EVENTS],
                self.create().replace("''", "'"),
            ],
        ).fetchone()
        return row == (len(_EVENTS),)


def source_triggers(backfill: "Backfill") -> Iterator[SourceTriggers]:
    """The triggers that a declaration asks for with `stale_when`."""
    for source, by in backfill.declared.stale_when.items():
        yield SourceTriggers(backfill, source, by)


def apply(conn: psycopg.Connection[Any], backfill: "Backfill") -> None:
    """Make all triggers of a backfill in one transaction. Raises UserError, and nothing is made, where one can't be."""
    wanted = list(source_triggers(backfill))
    for triggers in wanted:
        triggers.check(conn)
    with conn.transaction():
        for triggers in wanted:
            conn.execute(triggers.create())


def remove(conn: psycopg.Connection[Any], backfill: "Backfill") -> None:
    """Take all triggers of a backfill away again."""
    with conn.transaction():
        for triggers in source_triggers(backfill):
            conn.execute(triggers.drop())
