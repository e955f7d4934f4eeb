"""A plan's report as Dagster metadata: numbers, and tables in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from dagster_backfills.dagster.tables import markdown
from dagster_backfills.engine.plan import Report
from dagster_backfills.names import labelled
from dagster_backfills.postgres.values import in_words

_LISTED = 50
_LONGEST = 80
_BAR = 30
COUNTED = ("inserted", "updated", "deleted", "unchanged", "failed_units")


def report_metadata(report: Report) -> dict[str, Any]:
    """Totals as numbers; partitions that would change, failures and examples as tables."""
    total, by = report.total(), _named(by_partition(report), 1, report)
    metadata: dict[str, Any] = {name: getattr(total, name) for name in COUNTED}
    metadata |= {
        "estimated_seconds": round(report.estimate.seconds, 1),
        "estimated_range": f"{report.estimate.low:.1f} to {report.estimate.high:.1f} s",
        "changes": _bars(by),
        "by_table": _table(["table", *COUNTED], by_table(report)),
        "by_partition": _table(["table", "partition", *COUNTED], by),
        "examples": _table(
            ["change", "table", "partition", "before", "after"], _named(examples(report), 2, report)
        ),
    }
    if report.failures:
        rows = _named(failures(report), 1, report)
        metadata["failures"] = _table(["table", "partition", "unit", "message"], rows)
    return metadata


def _named(rows: Iterable[list[Any]], at: int, report: Report) -> list[list[Any]]:
    """The rows, with the partition's name added to its key in column `at`."""
    return [[*row[:at], labelled(row[at], report.names.get(row[at])), *row[at + 1 :]] for row in rows]


def by_table(report: Report) -> list[list[Any]]:
    """Row counts per table."""
    return [[a, *(getattr(report.total(a), name) for name in COUNTED)] for a in report.assets]


def by_partition(report: Report) -> list[list[Any]]:
    """Row counts per partition with changes or failures, largest first."""
    rows = [
        [asset, key or "–", *(getattr(count, name) for name in COUNTED)]
        for asset in report.assets
        for key, count in report.counts[asset].items()
        if count.changed or count.failed_units
    ]
    return sorted(rows, key=lambda row: -(row[2] + row[3] + row[4] + row[6]))


def examples(report: Report) -> list[list[Any]]:
    """Example rows before and after. In an updated row, the changed columns come first."""
    return [[e.change, e.asset, e.partition or "–", _row(e.before), _row(e.after)] for e in report.examples]


def failures(report: Report) -> list[list[Any]]:
    """Partitions and units that could not be written, with the database's message."""
    return [[f.asset, f.partition or "–", f.unit or "–", f.message] for f in report.failures]


def _bars(rows: Sequence[Sequence[Any]]) -> dg.MetadataValue:
    """A text bar chart of changes per partition. Dagster plots only asset metadata, and a plan has no asset event."""
    changes = [(f"{row[0]} {row[1]}", row[2] + row[3] + row[4]) for row in rows]
    most = max((number for _, number in changes), default=0) or 1
    return _table(["partition", "changes", ""], [[k, n, "█" * -(-n * _BAR // most)] for k, n in changes])


def _row(row: dict[str, Any] | None) -> str:
    return "–" if row is None else ", ".join(f"{name}={_short(value)}" for name, value in row.items())


def _short(value: Any) -> str:
    text = in_words(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> dg.MetadataValue:
    more = f"\n\nShowing the first {_LISTED} of {len(rows):,}." if len(rows) > _LISTED else ""
    return dg.MetadataValue.md(markdown(headers, rows[:_LISTED]) + more)
