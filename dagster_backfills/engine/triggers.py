"""Triggers that mark partitions stale when a source table changes: creates, checks and removes them.

The trigger function runs once per statement with its owner's privileges, so writers of the source table need no
privileges on our tables. Not here: processing stale partitions (`selection`, `runner`).
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
# Rows that an update leaves unchanged don't count. They are compared as text because some types have no equality.
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
# TRUNCATE leaves no rows to read keys from: all partitions that were ever written become stale.
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
    """The triggers of one backfill on one source table."""

    watched: WatchedTable

    @property
    def names(self) -> dict[str, str]:
        """Trigger names by event."""
        return {event: _short_name(f"backfills_{self.watched.backfill}", f"_{event}") for event in _EVENTS}

    @property
    def function(self) -> sql.Identifier:
        return sql.Identifier("backfill", _short_name(f"{self.watched.backfill} of {self.watched.source}"))

    @property
    def body(self) -> str:
        """The body of the trigger function."""
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
        """Returns the DDL that creates or replaces the triggers and their function."""
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
        """Returns the DDL that drops the triggers and their function."""
        statements = [
            sql.SQL("drop trigger if exists {} on {};").format(sql.Identifier(name), self.watched.table)
            for name in self.names.values()
        ]
        statements.append(sql.SQL("drop function if exists {}();").format(self.function))
        return "\n".join(statement.as_string(None) for statement in statements)

    def present(self, conn: psycopg.Connection[Any]) -> bool:
        """Whether all triggers exist, are enabled, and have the current function body."""
        row = conn.execute(
            _PRESENT, [self.watched.table.as_string(None), list(self.names.values()), self.body]
        ).fetchone()
        return row == (len(_EVENTS),)


def apply(conn: psycopg.Connection[Any], sources: Sequence[SourceTriggers]) -> None:
    """Creates or replaces all these triggers in one transaction.

    Raises UserError, with nothing created, if the role or a table does not allow it.
    """
    for triggers in sources:
        triggers.watched.check(conn)
    with conn.transaction():
        for triggers in sources:
            try:
                conn.execute(triggers.create())
            except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
                raise UserError(
                    f"The triggers on {triggers.watched.source} can't be created: {error.diag.message_primary}.",
                    hint="Ask the table's owner to run the SQL that `backfills triggers` prints, or declare "
                    "`stale_by: polling`. For a view or a foreign table, declare `due`.",
                ) from error


def remove(conn: psycopg.Connection[Any], sources: Sequence[SourceTriggers]) -> None:
    """Drops all these triggers in one transaction."""
    with conn.transaction():
        for triggers in sources:
            conn.execute(triggers.drop())


def _short_name(name: str, suffix: str = "") -> str:
    """The name, shortened with a hash if it exceeds Postgres's 63 bytes."""
    whole = name + suffix
    if len(whole.encode()) <= 63:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    room = 62 - len(digest) - len(suffix.encode())
    return f"{name.encode()[:room].decode(errors='ignore')}_{digest}{suffix}"
