"""The statement that puts a table's rows back to what the journal says of them. It is composed, not run, here.

A row is put back where it is still what the run left. One that is as it was before already is passed over, so that a
slice may be done again; any other was changed since, and is kept. In a key's several entries the first says what was
before, and the last what was left.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.counting import common_tables, with_counts
from dagster_backfills.engine.table.entries import KEY, content, entry, names, same_key, standing
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
# The parts of the statement, by name. `{t}`: the table; `{same}`: a row `t` is still the one that was looked at.
_FOUND = {
    "net": """
    select n.*, n.before::{t} as was
    from (
        select distinct on (j.key)
            j.key, j.partition as label, j.after,
            first_value(j.before) over (partition by j.key order by j.id) as before
        from entries as j order by j.key, j.id desc
    ) as n""",
    "looked": """
    select l.*,
        case
            when l.now is not distinct from l.back then 'already'
            when l.now is distinct from l.after then 'kept'
            when l.back is null then 'deleted'
            when l.now is null then 'inserted'
            else 'updated'
        end as verdict
    from (
        select
            n.*,
            t.ctid as seen,
            case when t.ctid is not null then {standing} end as standing,
            case when t.ctid is not null then {now} end as now,
            case when n.before is not null then {back} end as back
        from net as n
        cross join lateral (select (n.was).*) as w
        left join {t} as t on {found}
    ) as l""",
}
_CHANGES = {
    "gone": """
    delete from {t} as t using looked as l where l.verdict = 'deleted' and t.ctid = l.seen and {same}
    returning l.label, {gone}""",
    "updated": """
    update {t} as t set {set} from looked as l where l.verdict = 'updated' and t.ctid = l.seen and {same}
    returning l.label, {updated}""",
    "new": """
    insert into {t} as t ({columns}) overriding system value
    select {values}
    from (select (l.was).* from looked as l where l.verdict = 'inserted' order by l.key) as w
    on conflict do nothing returning {new}""",
    "inserted": "select l.label, {entry} from new as t inner join looked as l on {key} = l.key",
}
_GIVEN = "select label, count(*), 0, 0, 0 from looked where verdict <> 'already' group by label"


@dataclass(frozen=True)
class Restore:
    """One table's way back. `touched`: the column that is no difference in itself."""

    table: Table
    touched: str

    def statement(self, *, slices: bool) -> sql.Composed:
        """Undo what the binds name, and return counts as a merge does. `slices`: only those of the bind `entries`."""
        return with_counts([*self._found(slices), *self._parts(_CHANGES)], sql.SQL(_GIVEN))

    def kept(self, *, slices: bool) -> sql.Composed:
        """Some of the rows that were changed since: partition, what they were, what they are."""
        return common_tables(self._found(slices)) + sql.SQL(
            "select label, to_jsonb(was), to_jsonb(standing::{}) from looked where verdict = 'kept' limit %(room)s"
        ).format(self.table.relation)

    def _found(self, slices: bool) -> list[tuple[str, sql.Composable]]:
        return [("entries", sql.SQL(_SLICE if slices else _ENTRIES)), *self._parts(_FOUND)]

    def _parts(self, texts: Mapping[str, str]) -> list[tuple[str, sql.Composable]]:
        table, writable = self.table, [c for c in self.table.columns if not c.generated]
        given = {
            "t": table.relation,
            "found": same_key(table, "t", "n"),
            "same": same_key(table, "t", "l"),
            "standing": standing("t"),
            "now": content(table, self.touched, "t"),
            "back": content(table, self.touched, "w"),
            "set": sql.SQL(", ").join(
                sql.SQL("{0} = (l.was).{0}").format(ident(c.name)) for c in writable if not c.always
            ),
            "columns": columns("", [c.name for c in writable]),
            "values": columns("w", [c.name for c in writable]),
            "gone": entry(table, self.touched, before=standing("t")),
            "updated": entry(table, self.touched, before=ident("l", "standing"), after="t"),
            "new": entry(table, self.touched, after="t"),
            "entry": names("t"),
            "key": ident("t", KEY),
        }
        return [(name, sql.SQL(text).format(**given)) for name, text in texts.items()]
