"""Triggers that mark partitions stale when a source table changes: their DDL, whether they are there, their removal.

A trigger runs once a statement, over the changed rows, with its owner's rights: whoever writes the source needs no
right on anything of ours. Not here: what is done about what is stale.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from dagster_backfills.engine.watched import WatchedTable
from dagster_backfills.errors import UserError

_EVENTS = {
    "insert": "\nreferencing new table as new_rows",
    "update": "\nreferencing old table as old_rows new table as new_rows",
    "delete": "\nreferencing old table as old_rows",
    "truncate": "",
}
# Rows that an update leaves as they were are no change. They are compared as text: not every type has an equality.
_CHANGED = {
    "insert": "select * from new_rows",
    "update": """select o.* from old_rows as o where not exists (select from new_rows as n where n::text = o::text)
        union all
        select n.* from new_rows as n where not exists (select from old_rows as o where o::text = n::text)""",
    "delete": "select * from old_rows",
}
_KEYS = """with changed_rows as ({changed})
            select distinct k::text from ({select}
            ) as q (k) where k is not null"""
# No row is left to ask: all that has ever been written.
_WRITTEN = """select distinct k from backfill.batches as b cross join unnest(b.partitions) as k
            where b.asset = any({assets}::text[])"""
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
            {keys}
        );"""
_TRIGGER = """create or replace trigger {name} after {event} on {table}{rows}
for each statement execute function {function}();"""
_PRESENT = """
select count(*) from pg_trigger as t inner join pg_proc as p on t.tgfoid = p.oid
where t.tgrelid = to_regclass(%s) and t.tgenabled in ('O', 'A') and t.tgname = any(%s) and p.prosrc = %s
"""


@dataclass(frozen=True)
class SourceTriggers:
    """The triggers of one backfill on one of its source tables."""

    watched: WatchedTable

    @property
    def names(self) -> dict[str, str]:
        """By event."""
        return {event: _fitting(f"backfills_{self.watched.backfill}", f"_{event}") for event in _EVENTS}

    @property
    def function(self) -> sql.Identifier:
        return sql.Identifier("backfill", _fitting(f"{self.watched.backfill} of {self.watched.source}"))

    @property
    def body(self) -> str:
        """What the function does."""
        assets = sql.Literal(list(self.watched.assets)).as_string(None)
        branches = []
        for number, event in enumerate(_EVENTS):
            changed = _CHANGED.get(event)
            keys = (
                _KEYS.format(changed=changed, select=self.watched.select)
                if changed
                else _WRITTEN.format(assets=assets)
            )
            word = "elsif" if number else "if"
            branches.append(_BRANCH.format(word=word, event=event.upper(), keys=keys))
        return _BODY.format(branches="\n    ".join(branches), assets=assets)

    def create(self) -> str:
        """The DDL that makes them, or makes them anew."""
        parts = [sql.SQL(_FUNCTION).format(function=self.function, body=sql.Literal(self.body))]
        parts += [
            sql.SQL(_TRIGGER).format(
                name=sql.Identifier(self.names[event]),
                event=sql.SQL(event),
                table=self.watched.table,
                rows=sql.SQL(rows),
                function=self.function,
            )
            for event, rows in _EVENTS.items()
        ]
        return "\n\n".join(part.as_string(None) for part in parts)

    def drop(self) -> str:
        """The DDL that takes them away without a trace."""
        gone = [
            sql.SQL("drop trigger if exists {} on {};").format(sql.Identifier(name), self.watched.table)
            for name in self.names.values()
        ]
        gone.append(sql.SQL("drop function if exists {}();").format(self.function))
        return "\n".join(part.as_string(None) for part in gone)

    def present(self, conn: psycopg.Connection[Any]) -> bool:
        """Whether all of them are there, enabled, and as they would be made now."""
        row = conn.execute(
            _PRESENT, [self.watched.table.as_string(None), list(self.names.values()), self.body]
        ).fetchone()
        return row == (len(_EVENTS),)


def apply(conn: psycopg.Connection[Any], wanted: Sequence[SourceTriggers]) -> None:
    """Make all of these in one transaction. Raises UserError, and nothing is made, where one can't be."""
    for triggers in wanted:
        triggers.watched.check(conn)
    with conn.transaction():
        for triggers in wanted:
            try:
                conn.execute(triggers.create())
            except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
                raise UserError(
                    f"The triggers on {triggers.watched.source} can't be made: {error.diag.message_primary}.",
                    hint="Let the table's owner run what `backfills triggers` prints, or declare `stale_by: look`; "
                    "for a view or a foreign table, `due`.",
                ) from error


def remove(conn: psycopg.Connection[Any], gone: Sequence[SourceTriggers]) -> None:
    """Take all of these away again."""
    with conn.transaction():
        for triggers in gone:
            conn.execute(triggers.drop())


def _fitting(name: str, suffix: str = "") -> str:
    """A name of at most 63 bytes that is still one of its own."""
    whole = name + suffix
    if len(whole.encode()) <= 63:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    room = 62 - len(digest) - len(suffix.encode())
    return f"{name.encode()[:room].decode(errors='ignore')}_{digest}{suffix}"
