"""The statement that puts a table's rows back to what the journal says of them. It is composed, not run, here.

A row is put back where it is still what the run left. One that is as it was before already is passed over, so that a
slice may be done again; any other was changed since, and is kept. In a key's several entries the first says what was
before, and the last what was left.
"""

from dataclasses import dataclass

from psycopg import sql

from dagster_backfills.engine.table.catalog import Table
from dagster_backfills.engine.table.counting import common_tables, with_counts
from dagster_backfills.engine.table.entries import content, entry, names, same_key, standing
from dagster_backfills.engine.table.names import columns, ident

_ENTRIES = """
select j.* from backfill.batches as b
inner join backfill.journal as j on b.journal_id = j.journal_id
where b.run_id = %(undone)s and b.asset = %(asset)s and j.partition = any(%(partition_keys)s::text[])
"""
_SLICE = """
select j.* from backfill.journal as j
inner join backfill.batches as b on j.journal_id = b.journal_id
where j.id = any(%(entries)s::bigint[]) and b.run_id = %(undone)s and b.asset = %(asset)s
    and j.partition = any(%(partition_keys)s::text[])
"""
_NET = """
select n.*, n.before::{table} as was
from (
    select distinct on (j.key)
        j.key, j.partition as label, j.after, first_value(j.before) over (partition by j.key order by j.id) as before
    from entries as j order by j.key, j.id desc
) as n
"""
_LOOKED = """
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
    left join {table} as t on {same}
) as l
"""


@dataclass(frozen=True)
class Restore:
    """One table's way back. `touched`: the column that is no difference in itself."""

    table: Table
    touched: str

    def statement(self, *, slices: bool) -> sql.Composed:
        """Undo what the binds name, and return counts as a merge does. `slices`: only those of the bind `entries`."""
        parts = [
            *self._found(slices),
            ("gone", self._gone()),
            ("updated", self._updated()),
            ("new", self._inserted()),
            ("inserted", sql.SQL("select l.label, {} from new as t inner join looked as l on {} = l.key").format(
                names("t"), ident("t", "backfill key"))),
        ]  # fmt: skip
        given = sql.SQL(
            "select label, count(*), 0, 0, 0 from looked where verdict <> 'already' group by label"
        )
        return with_counts(parts, given)

    def kept(self, *, slices: bool) -> sql.Composed:
        """Some of the rows that were changed since: partition, what they were, what they are."""
        return common_tables(self._found(slices)) + sql.SQL(
            "select label, to_jsonb(was), to_jsonb(standing::{}) from looked where verdict = 'kept' limit %(room)s"
        ).format(self.table.relation)

    def _found(self, slices: bool) -> list[tuple[str, sql.Composable]]:
        looked = sql.SQL(_LOOKED).format(
            standing=standing("t"),
            now=content(self.table, self.touched, "t"),
            back=content(self.table, self.touched, "w"),
            table=self.table.relation,
            same=same_key(self.table, "t", "n"),
        )
        return [
            ("entries", sql.SQL(_SLICE if slices else _ENTRIES)),
            ("net", sql.SQL(_NET).format(table=self.table.relation)),
            ("looked", looked),
        ]

    def _same(self) -> sql.Composed:
        return sql.SQL("t.ctid = l.seen and {}").format(same_key(self.table, "t", "l"))

    def _gone(self) -> sql.Composed:
        return sql.SQL(
            "delete from {t} as t using looked as l where l.verdict = 'deleted' and {same}\n"
            "returning l.label, {entry}"
        ).format(
            t=self.table.relation,
            same=self._same(),
            entry=entry(self.table, self.touched, before=standing("t")),
        )

    def _updated(self) -> sql.Composed:
        names = [c.name for c in self.table.columns if not c.generated and not c.always]
        return sql.SQL(
            "update {t} as t set {set} from looked as l where l.verdict = 'updated' and {same}\n"
            "returning l.label, {entry}"
        ).format(
            t=self.table.relation,
            set=sql.SQL(", ").join(sql.SQL("{0} = (l.was).{0}").format(ident(name)) for name in names),
            same=self._same(),
            entry=entry(self.table, self.touched, before=ident("l", "standing"), after="t"),
        )

    def _inserted(self) -> sql.Composed:
        names = [c.name for c in self.table.columns if not c.generated]
        return sql.SQL(
            "insert into {t} as t ({columns}) overriding system value\n"
            "select {values}\n"
            "from (select (l.was).* from looked as l where l.verdict = 'inserted' order by l.key) as w\n"
            "on conflict do nothing returning {entry}"
        ).format(
            t=self.table.relation,
            columns=columns("", names),
            values=columns("w", names),
            entry=entry(self.table, self.touched, after="t"),
        )
