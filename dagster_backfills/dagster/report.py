"""Dagster metadata, the failure message and log lines for a run of the engine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dagster_backfills.dagster.tables import table
from dagster_backfills.engine.model import Mode
from dagster_backfills.engine.outcome import Counts, Outcome
from dagster_backfills.engine.runner import Runner
from dagster_backfills.names import labelled

_LOG_EVERY_SECONDS = 5.0
_LISTED = 50  # failed partitions listed in the metadata; the ledger has all


def partition_metadata(counts: Counts | None, mode: Mode, *, partitioned: bool) -> dict[str, Any]:
    """The row counts of one partition. None means that an earlier attempt of the run wrote it.

    The partition's total row count is unknown with `insert_missing`, whose source returns only new rows.
    """
    if counts is None:
        return {"written_by": "an earlier attempt of this run"}
    entries: dict[str, Any] = {}
    if mode != "insert_missing":
        entries["dagster/partition_row_count" if partitioned else "dagster/row_count"] = counts.rows
    entries |= _rows(counts, "rows")
    if counts.failed_units:
        entries["failed_units"] = counts.failed_units
    return entries


def run_metadata(outcome: Outcome, asset: str) -> dict[str, Any]:
    """One asset's totals for the whole run."""
    return {
        "run_partitions": len(outcome.done) + len(outcome.resumed),
        **_rows(outcome.total(asset), "run_rows"),
        "run_failed_units": sum(f.asset == asset for f in outcome.unit_failures),
        "run_seconds": round(outcome.seconds, 3),
    }


def _rows(counts: Counts, prefix: str) -> dict[str, int]:
    return {
        f"{prefix}_{name}": getattr(counts, name) for name in ("inserted", "updated", "unchanged", "deleted")
    }


def failure_of(outcome: Outcome, total: int, names: Mapping[str, str | None]) -> dg.Failure:
    """The failure of a step some of whose partitions could not be written. Not retried, because the data is invalid."""
    failures = list(outcome.failed.items())
    shown = "; ".join(f"{labelled(repr(key), names.get(key))}: {f.message}" for key, f in failures[:5])
    more = f"; and {len(failures) - 5:,} more" if len(failures) > 5 else ""
    listed = [
        {"partition": key}
        | ({"name": names[key]} if names.get(key) else {})
        | {"asset": f.asset, "error": f.error_class, "message": f.message}
        for key, f in failures[:_LISTED]
    ]
    return dg.Failure(
        description=(
            f"{len(failures):,} of {total:,} partitions could not be written ({shown}{more}). The others are written. "
            "Fix the cause, then relaunch the failed partitions. `backfills failures` lists them all."
        ),
        metadata={"failed_partitions": len(failures), "failures": table(listed)},
        allow_retries=False,
    )


@dataclass
class ProgressLog:
    """Logs a progress line every few seconds: progress, speed and time left."""

    total: int
    log: Callable[[str], None]
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    logged: float = field(default_factory=time.monotonic)

    def step(self, partitions: int, runner: Runner) -> None:
        self.done += partitions
        if time.monotonic() - self.logged >= _LOG_EVERY_SECONDS and self.done < self.total:
            self.logged = time.monotonic()
            self.log(self.line(runner))

    def line(self, runner: Runner) -> str:
        """The progress line. Estimates the time left from units if they are counted, as partitions differ in size."""
        outcome = runner.outcome
        seconds = time.monotonic() - self.began
        written = Counts()
        for asset in outcome.counts:
            written.add(outcome.total(asset))
        share = (
            runner.units_done / runner.units_total if runner.units_total else self.done / max(self.total, 1)
        )
        left = seconds / share * (1 - share) if share else 0.0
        return (
            f"{self.done:,} of {self.total:,} partitions ({int(100 * share)} %), "
            f"{written.inserted:,} rows inserted, {written.updated:,} updated, {written.unchanged:,} unchanged, "
            f"{written.deleted:,} deleted, {len(outcome.failed):,} partitions and "
            f"{len(outcome.unit_failures):,} units failed; "
            f"{self.done / max(seconds, 0.001):,.0f} partitions/s"
            + (f", about {left:,.0f} s left" if self.done < self.total else f", {seconds:,.1f} s")
        )
