"""What a run would do, found by doing it and rolling back: counts, failures, examples, and how long it would take.

Not here: how a run is rehearsed (`runner`, `session`), nor how a report is shown.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any
from uuid import uuid4

import psycopg

from dagster_backfills.engine.ledger import RunIdentity
from dagster_backfills.engine.model import Write
from dagster_backfills.engine.outcome import Counts, Failure, Outcome
from dagster_backfills.engine.rehearsal import Example, Rehearsal, chosen_of
from dagster_backfills.engine.runner import Connect, Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.table.address import Address

# Seconds a row of the last runs, apart for batches that changed rows and for those that found all as it was.
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
    """Seconds that the run would take, and the range that its forerunners took for so many rows.

    runs: how many of these there were; 0 where the time is that of the plan itself.
    """

    seconds: float
    low: float
    high: float
    runs: int


@dataclass
class Report:
    """What a run would do. `counts` by asset and partition; `names` are partitions'; `seconds` took finding it out."""

    assets: Sequence[str]
    counts: dict[str, dict[str, Counts]]
    failures: list[Failure]
    examples: list[Example]
    estimate: Estimate
    seconds: float
    said: dict[str, Any] = field(default_factory=dict)
    names: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def nothing(cls) -> "Report":
        """Of a run that finds nothing to do."""
        return cls([], {}, [], [], Estimate(0, 0, 0, 0), 0)

    def total(self, asset: str | None = None) -> Counts:
        """Of one asset, or of all."""
        assets = self.assets if asset is None else [asset]
        return Counts.sum(count for a in assets for count in self.counts.get(a, {}).values())

    @property
    def changes(self) -> int:
        """Rows that would be changed."""
        return self.total().changed

    def as_json(self) -> dict[str, Any]:
        """The whole as plain data."""
        return {
            **self.said,
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


def combined(reports: Sequence[Report]) -> Report:
    """Several plans as one, each of other partitions."""
    whole = Report.nothing()
    if len(reports) == 1:
        return reports[0]
    for report in reports:
        whole.assets = list(dict.fromkeys([*whole.assets, *report.assets]))
        for asset, by_partition in report.counts.items():
            for key, count in by_partition.items():
                whole.counts.setdefault(asset, {}).setdefault(key, Counts()).add(count)
        whole.failures += report.failures
        whole.seconds += report.seconds
    whole.examples = chosen_of(example for report in reports for example in report.examples)
    of = [report.estimate for report in reports]
    whole.estimate = Estimate(
        sum(e.seconds for e in of), sum(e.low for e in of), sum(e.high for e in of),
        min((e.runs for e in of), default=0),
    )  # fmt: skip
    return whole


def plan(
    connect: Connect,
    writes: Sequence[Write],
    addresses: dict[str, Address],
    keys: Sequence[str],
    settings: EngineSettings | None = None,
    log: Callable[[str], None] = lambda line: None,
    *,
    apart: bool = False,
) -> Report:
    """What a run over these partitions would do. Nothing of it is kept. Raises what a run would raise.

    apart: the run writes table after table, a partition at a time, and each reads the one before. Here a batch of
    units goes through all of them in one transaction, so that what is read is there.
    """
    around = _by_itself if apart else None
    return rehearse(connect, settings, log, lambda runner: runner.run(writes, addresses, keys, around), apart)


def _by_itself(key: str, run: RunIdentity, work: Callable[[RunIdentity], Outcome]) -> dict[str, Any]:
    work(run)
    return {}


def rehearse(
    connect: Connect,
    settings: EngineSettings | None,
    log: Callable[[str], None],
    run: Callable[[Runner], Iterable[list[str]]],
    apart: bool = False,
) -> Report:
    """Run a rehearsal to its end and say what it has shown."""
    rehearsal = Rehearsal(apart)
    runner = Runner(
        connect, RunIdentity(str(uuid4())), settings or EngineSettings(), log, rehearsal=rehearsal
    )
    for _ in run(runner):
        pass
    outcome = runner.outcome
    failures = [*outcome.failed.values(), *outcome.unit_failures]
    with connect() as conn:
        estimate = estimated(conn, outcome)
        conn.rollback()
    return Report(
        list(outcome.counts), outcome.counts, failures, rehearsal.examples(), estimate, outcome.seconds
    )


def estimated(conn: psycopg.Connection[Any], outcome: Outcome) -> Estimate:
    """How long a run takes whose rehearsal came out so, by the account of earlier batches."""
    rates: dict[bool, list[float]] = {}
    for writes, rate in conn.execute(_HISTORY, {"assets": list(outcome.counts)}):
        rates.setdefault(writes, []).append(rate)
    if not rates:
        return Estimate(outcome.seconds, outcome.seconds / 2, outcome.seconds * 2, 0)
    rows = rows_by_kind(outcome.counts)
    known = {kind: rates.get(kind) or rates[not kind] for kind in rows}
    runs = max(map(len, rates.values()))
    spread = 2.0 if runs < 3 else 1.0  # of one or two runs nobody knows how much they differ

    def seconds(of: Callable[[list[float]], float]) -> float:
        return sum(rows[kind] * of(known[kind]) for kind in rows)

    return Estimate(seconds(median), seconds(min) / spread, seconds(max) * spread, runs)


def rows_by_kind(counts: Mapping[str, Mapping[str, Counts]]) -> dict[bool, int]:
    """Rows in partitions of which something would be changed (True), and in those that are as they should be."""
    rows = {True: 0, False: 0}
    for by_partition in counts.values():
        for count in by_partition.values():
            rows[count.changed > 0] += count.changed + count.unchanged
    return rows
