"""Composes the statement that restores a table's rows from the journal.

A row is restored only if it is still as the run left it. A row that is already restored is skipped, so that a slice can
be repeated. Any other row has changed since the run and is kept. If a key has several entries, the first one has the
version before the run and the last one the version after it. Not here: executing the statement (`undoing`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.counting import common_tables, with_counts
from dagster_backfills.engine.table.entries import KEY, content, entry, names, row_text, same_key
from dagster_backfills.engine.table.names import columns, ident

_ENTRIES = """
select j.* from backfill.batches as b
inner join backfill.journal_entries as j on b.journal_id = j.journal_id
where b.run_id = %(undone)s and b.asset = %(asset)s and j.partition = any(%(partition_keys)s::text[])
"""
_SLICE = """
select j.* from backfill.journal_entries as j
inner join backfill.batches as b on j.journal_id = b.journal_id
where j.chunk = any(%(chunks)s::bigint[]) and j.id = any(%(entries)s::bigint[])
    and b.run_id = %(undone)s and b.asset = %(asset)s
    and j.partition = any(%(partition_keys)s::text[])
"""
# The parts of the statement, by name. `{t}`: the table; `{same}`: row `t` has the key of the row compared.
_COMPARED = {
    "net": """
    select n.*, n.before::{t} as was
    from (
        select distinct on (j.key)
            j.key, j.partition as label, j.after,
            first_value(j.before) over (partition by j.key order by j.id) as before
        from entries as j order by j.key, j.id desc
    ) as n""",
    "compared": """
    select l.*,
        case
            when l.now is not distinct from l.back then 'restored'
            when l.now is distinct from l.after then 'kept'
            when l.back is null then 'deleted'
            when l.now is null then 'inserted'
            else 'updated'
        end as verdict
    from (
        select
            n.*,
            t.ctid as ctid_seen,
            case when t.ctid is not null then {current} end as current,
            case when t.ctid is not null then {now} end as now,
            case when n.before is not null then {back} end as back
        from net as n
        cross join lateral (select (n.was).*) as w
        left join {t} as t on {matches}
    ) as l""",
}
_CHANGES = {
    "deleted": """
    delete from {t} as t using compared as l where l.verdict = 'deleted' and t.ctid = l.ctid_seen and {same}
    returning l.label, {deleted}""",
    "updated": """
    update {t} as t set {set} from compared as l where l.verdict = 'updated' and t.ctid = l.ctid_seen and {same}
    returning l.label, {updated}""",
    "new": """
    insert into {t} as t ({columns}) overriding system value
    select {values}
    from (select (l.was).* from compared as l where l.verdict = 'inserted' order by l.key) as w
    on conflict do nothing returning {new}""",
    "inserted": "select l.label, {entry} from new as t inner join compared as l on {key} = l.key",
}
_ROWS = "select label, count(*), 0, 0, 0 from compared where verdict <> 'restored' group by label"


@dataclass(frozen=True)
class Restore:
    """Composes the statements for one table. touched: the column to ignore when rows are compared."""

    table: Table
    touched: str

    def statement(self, *, slices: bool) -> sql.Composed:
        """Returns the statement that restores rows; it returns counts as a merge does.

        slices: only the rows of the journal entries in the parameter `entries`.
        """
        return with_counts([*self._compared(slices), *self._parts(_CHANGES)], sql.SQL(_ROWS))

    def kept(self, *, slices: bool) -> sql.Composed:
        """Returns a SELECT of rows that are kept: partition, row before the run, current row."""
        return common_tables(self._compared(slices)) + sql.SQL(
            "select label, to_jsonb(was), to_jsonb(current::{}) from compared where verdict = 'kept' limit %(limit)s"
        ).format(self.table.relation)

    def _compared(self, slices: bool) -> list[tuple[str, sql.Composable]]:
        return [("entries", sql.SQL(_SLICE if slices else _ENTRIES)), *self._parts(_COMPARED)]

    def _parts(self, texts: Mapping[str, str]) -> list[tuple[str, sql.Composable]]:
        table, writable = self.table, [c for c in self.table.columns if not c.generated]
        fragments = {
            "t": table.relation,
            "matches": same_key(table, "t", "n"),
            "same": same_key(table, "t", "l"),
            "current": row_text("t"),
            "now": content(table, self.touched, "t"),
            "back": content(table, self.touched, "w"),
            "set": sql.SQL(", ").join(
                sql.SQL("{0} = (l.was).{0}").format(ident(c.name)) for c in writable if not c.always
            ),
            "columns": columns("", [c.name for c in writable]),
            "values": columns("w", [c.name for c in writable]),
            "deleted": entry(table, self.touched, before=row_text("t")),
            "updated": entry(table, self.touched, before=ident("l", "current"), after="t"),
            "new": entry(table, self.touched, after="t"),
            "entry": names("t"),
            "key": ident("t", KEY),
        }
        return [(name, sql.SQL(text).format(**fragments)) for name, text in texts.items()]
