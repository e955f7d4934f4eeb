"""Collects example rows of a rehearsal, before and after each kind of change, before its transactions roll back.

Not here: rolling back (`session`), the report (`plan`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

import psycopg
from psycopg import sql

from dagster_backfills.engine.outcome import Counts
from dagster_backfills.engine.prepared import PreparedWrite
from dagster_backfills.engine.table.entries import same_key

Change = Literal["inserted", "updated", "deleted"]
EXAMPLES = 20
_Row = dict[str, Any] | None

_CONDITIONS: Mapping[Change, str] = {
    "inserted": "j.before is null",
    "updated": "j.before is not null and j.after is not null",
    "deleted": "j.before is not null and j.after is null",
}
_EXAMPLES = """
select j.partition, to_jsonb(j.before::{table}), to_jsonb(t)
from (
    select j.* from backfill.journal_entries as j
    where j.journal_id = %(journal_id)s and {kind}
    order by j.id limit %(limit)s
) as j
left join {table} as t on {same}
"""


@dataclass(frozen=True)
class Example:
    """One row that would change. `before` is None for an inserted row, `after` for a deleted one."""

    asset: str
    partition: str
    change: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @classmethod
    def of(cls, write: PreparedWrite, partition: str, change: str, before: _Row, after: _Row) -> "Example":
        """Makes an example. Columns that differ come first, so that a narrow terminal shows them."""
        if before and after:
            old, new, touched = before, after, write.write.target.touched
            names = sorted(new, key=lambda name: (name == touched, old.get(name) == new[name]))
            before, after = ({name: row.get(name) for name in names} for row in (old, new))
        return cls(write.asset, partition, change, before, after)


@dataclass
class Rehearsal:
    """Collects examples of a rehearsed run, by asset and kind of change.

    table_by_table: the real run writes one table after the other, so a unit that fails in one is still tried in others.
    """

    table_by_table: bool = False
    collected: dict[tuple[str, str], list[Example]] = field(default_factory=dict)

    def collect(
        self,
        conn: psycopg.Connection[Any],
        write: PreparedWrite,
        journal_id: int,
        counts: Mapping[str, Counts],
    ) -> None:
        """Collects examples of a statement's changes from its journal entries, up to twenty of each kind."""
        total = Counts.sum(counts.values())
        for change, condition in _CONDITIONS.items():
            examples = self.collected.setdefault((write.asset, change), [])
            if not getattr(total, change) or len(examples) >= EXAMPLES:
                continue
            statement = sql.SQL(_EXAMPLES).format(
                table=write.table.relation,
                kind=sql.SQL(condition),
                same=same_key(write.table, "t", "j"),
            )
            binds = {"journal_id": journal_id, "limit": EXAMPLES - len(examples)}
            for partition, before, after in conn.execute(statement, binds, prepare=False):
                rows = before, None if change == "deleted" else after
                examples.append(Example.of(write, partition, change, *rows))

        kept = self.collected.setdefault((write.asset, "kept"), [])
        if total.unchanged and len(kept) < EXAMPLES:
            kept += write.kept_examples(conn, EXAMPLES - len(kept))

    def examples(self) -> list[Example]:
        """Up to twenty examples, spread evenly over tables and kinds of change."""
        interleaved = [
            row for rows in zip_longest(*self.collected.values()) for row in rows if row is not None
        ]
        return sorted(interleaved[:EXAMPLES], key=lambda example: (example.change, example.asset))
