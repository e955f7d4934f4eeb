"""What a run is asked that is only a rehearsal: rows of each kind of change, before and after, while they are there.

The run's own transactions, each rolled back at its end (`session`). Not here: what is said of them (`plan`).
"""

from collections.abc import Iterable, Mapping
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

_OF_KIND: Mapping[Change, str] = {
    "inserted": "j.before is null",
    "updated": "j.before is not null and j.after is not null",
    "deleted": "j.before is not null and j.after is null",
}
_LOOK = """
select j.partition, to_jsonb(j.before::{table}), to_jsonb(t)
from (
    select j.* from backfill.journal_entries as j
    where j.journal_id = %(journal_id)s and {kind}
    order by j.id limit %(room)s
) as j
left join {table} as t on {same}
"""


@dataclass(frozen=True)
class Example:
    """One row that would be changed. `before` is None where there is none, `after` where none is left."""

    asset: str
    partition: str
    change: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    @classmethod
    def of(cls, write: PreparedWrite, partition: str, change: str, before: _Row, after: _Row) -> "Example":
        """Of a row that was changed, the columns that differ come first, so that a narrow terminal shows them."""
        if before and after:
            old, new, touched = before, after, write.write.target.touched
            names = sorted(new, key=lambda name: (name == touched, old.get(name) == new[name]))
            before, after = ({name: row.get(name) for name in names} for row in (old, new))
        return cls(write.asset, partition, change, before, after)


@dataclass
class Rehearsal:
    """Gathers examples of a rehearsed run, by asset and kind of change.

    apart: the run writes its tables one after the other, so that a unit that fails in one is tried in the others.
    """

    apart: bool = False
    found: dict[tuple[str, str], list[Example]] = field(default_factory=dict)

    def look(
        self,
        conn: psycopg.Connection[Any],
        write: PreparedWrite,
        journal_id: int,
        counts: Mapping[str, Counts],
    ) -> None:
        """Take examples from what a statement has just done, of the kinds that are not seen often enough."""
        total = Counts.sum(counts.values())
        for change, kind in _OF_KIND.items():
            found = self.found.setdefault((write.asset, change), [])
            if not getattr(total, change) or len(found) >= EXAMPLES:
                continue
            statement = sql.SQL(_LOOK).format(
                table=write.table.relation,
                kind=sql.SQL(kind),
                same=same_key(write.table, "t", "j"),
            )
            binds = {"journal_id": journal_id, "room": EXAMPLES - len(found)}
            for partition, before, after in conn.execute(statement, binds, prepare=False):
                rows = before, None if change == "deleted" else after
                found.append(Example.of(write, partition, change, *rows))

        kept = self.found.setdefault((write.asset, "kept"), [])
        if total.unchanged and len(kept) < EXAMPLES:
            kept += write.kept_examples(conn, EXAMPLES - len(kept))

    def examples(self) -> list[Example]:
        return chosen_of(example for found in self.found.values() for example in found)


def chosen_of(examples: Iterable[Example]) -> list[Example]:
    """Up to twenty, of each table and kind as many as of the others where there are so many."""
    by_kind: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        by_kind.setdefault((example.asset, example.change), []).append(example)
    turns = [row for rows in zip_longest(*by_kind.values()) for row in rows if row is not None]
    return sorted(turns[:EXAMPLES], key=lambda example: (example.change, example.asset))
