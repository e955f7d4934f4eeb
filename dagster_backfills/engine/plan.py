"""Plans a run by executing it and rolling back: row counts, failures, examples and the estimated duration.

Not here: how a rehearsal runs (`runner`, `session`) or how a report is shown (`cli/plan`, `dagster/plan_report`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any
from uuid import uuid4

import psycopg

from dagster_backfills.engine.model import Write
from dagster_backfills.engine.outcome import Counts, Failure, Outcome
from dagster_backfills.engine.rehearsal import Example, Rehearsal
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Connect, Runner
from dagster_backfills.engine.settings import EngineSettings

# Seconds per row of the latest runs, separately for batches that changed rows and batches that changed none.
_HISTORY = """
with batches as (
    select
        b.run_id,
        max(b.seconds) as seconds,
        sum(b.rows_inserted + b.rows_updated + b.rows_unchanged + b.rows_deleted) as handled,
        sum(b.rows_inserted + b.rows_updated + b.rows_deleted) > 0 as writes,
        max(b.committed_at) as committed_at
    from (
        select * from backfill.batches where asset = any(%(assets)s::text[]) order by committed_at desc limit 5000
    ) as b
    group by b.batch_id, b.run_id
)
select b.writes, (sum(b.seconds) / sum(b.handled))::double precision
from batches as b
where b.handled > 0
group by b.run_id, b.writes
order by max(b.committed_at) desc
limit 40
"""


@dataclass(frozen=True)
class Estimate:
    """The estimated duration of a run in seconds, with a range from earlier runs scaled to this number of rows.

    runs: the number of earlier runs; 0 if the estimate is the duration of the plan itself.
    """

    seconds: float
    low: float
    high: float
    runs: int


@dataclass
class Report:
    """What a run would do.

    counts: by asset and partition. seconds: duration of the plan. names: display names of partitions.
    """

    assets: Sequence[str]
    counts: dict[str, dict[str, Counts]]
    failures: list[Failure]
    examples: list[Example]
    estimate: Estimate
    seconds: float
    names: Mapping[str, str | None] = field(default_factory=dict)

    def total(self, asset: str | None = None) -> Counts:
        """Returns the counts of one asset, or of all."""
        assets = self.assets if asset is None else [asset]
        return Counts.sum(count for a in assets for count in self.counts.get(a, {}).values())

    @property
    def changes(self) -> int:
        """The number of rows that would change."""
        return self.total().changed

    def as_json(self) -> dict[str, Any]:
        """Returns the report as JSON-serializable data."""
        return {
            "changes": self.changes,
            "total": {asset: asdict(self.total(asset)) for asset in self.assets},
            "partitions": {
                asset: {key: asdict(count) for key, count in self.counts.get(asset, {}).items()}
                for asset in self.assets
            },
            "failures": [asdict(failure) for failure in self.failures],
            "examples": [asdict(example) for example in self.examples],
            "estimate": asdict(self.estimate),
            "seconds": self.seconds,
        }


def plan(
    connect: Connect,
    work: Iterable[tuple[Sequence[Write], Sequence[str]]],
    settings: EngineSettings | None = None,
    log: Callable[[str], None] = lambda line: None,
    *,
    table_by_table: bool = False,
) -> Report:
    """Returns what a run would do. Every change is rolled back.

    connect: gives a connection. work: tables, in the order of the run, with the partitions to write in them. log:
    receives log lines. table_by_table: the run writes one table after the other, and each reads the one before. The
    plan then writes every batch of units to all tables in one transaction, so that each table sees the rows of the one
    before.

    Raises whatever the run would raise.
    """

    def run(runner: Runner) -> Iterator[list[str]]:
        for writes, keys in work:
            yield from runner.run(writes, keys)

    return rehearse(connect, settings, log, run, table_by_table)


def rehearse(
    connect: Connect,
    settings: EngineSettings | None,
    log: Callable[[str], None],
    run: Callable[[Runner], Iterable[list[str]]],
    table_by_table: bool = False,
) -> Report:
    """Executes `run` with a runner that commits nothing, and returns what it would have done."""
    rehearsal = Rehearsal(table_by_table)
    runner = Runner(
        connect, RunIdentity(str(uuid4())), settings or EngineSettings(), log, rehearsal=rehearsal
    )
    for _ in run(runner):
        pass
    outcome = runner.outcome
    with connect() as conn:
        estimate = estimate_from_history(conn, outcome)
        conn.rollback()
    return Report(
        list(outcome.counts),
        outcome.counts,
        outcome.failures,
        rehearsal.examples(),
        estimate,
        outcome.seconds,
    )


def estimate_from_history(conn: psycopg.Connection[Any], outcome: Outcome) -> Estimate:
    """Estimates a run's duration from its rehearsal and from the recorded durations of earlier batches."""
    rates: dict[bool, list[float]] = {}
    for writes, rate in conn.execute(_HISTORY, {"assets": list(outcome.counts)}):
        rates.setdefault(writes, []).append(rate)
    if not rates:
        return Estimate(outcome.seconds, outcome.seconds / 2, outcome.seconds * 2, 0)
    rows = rows_by_kind(outcome.counts)
    known = {kind: rates.get(kind) or rates[not kind] for kind in rows}
    runs = max(map(len, rates.values()))
    spread = 2.0 if runs < 3 else 1.0  # one or two runs say little about the variance

    def seconds(of: Callable[[list[float]], float]) -> float:
        return sum(rows[kind] * of(known[kind]) for kind in rows)

    return Estimate(seconds(median), seconds(min) / spread, seconds(max) * spread, runs)


def rows_by_kind(counts: Mapping[str, Mapping[str, Counts]]) -> dict[bool, int]:
    """Counts the rows of partitions that would change (True) and of partitions that would not (False)."""
    rows = {True: 0, False: 0}
    for by_partition in counts.values():
        for count in by_partition.values():
            rows[count.changed > 0] += count.changed + count.unchanged
    return rows
