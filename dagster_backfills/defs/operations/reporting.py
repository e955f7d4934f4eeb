"""What the history of runs looks like to people: the daily report's figures, table and pictures."""

import base64
import io
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
from psycopg.rows import dict_row

from dagster_backfills.defs.operations.statements import statement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DAYS = 30
_COLOURS = {"succeeded": "#2f9e67", "failed": "#d2401f", "cancelled": "#9aa0a6"}
_SHOWN_JOBS = 15


def report(conn: psycopg.Connection, until: date, days: int = DAYS) -> dict[str, Any]:
    """The last `days` UTC days up to `until` as metadata: figures of the last day, tables and pictures of all."""
    binds = {"until": until, "days": days}
    by_day, by_job, by_domain = (
        _rows(conn, name, binds) for name in ("outcomes_by_day", "durations_by_job", "written_by_domain")
    )
    conn.commit()
    last = by_day[-1]
    entries: dict[str, Any] = {f"runs_{name}_last_day": last[name] for name in _COLOURS}
    entries |= {"days": days, "runs": sum(row["runs"] for row in by_job)}
    entries |= {"runs_failed": sum(row["failed"] for row in by_job)}
    if by_job:
        entries["jobs"] = _table(by_job)
        entries["outcomes"] = outcomes_picture(by_day)
        entries["durations"] = durations_picture(by_job[:_SHOWN_JOBS])
    if by_domain:
        entries["written"] = _table(by_domain)
    return entries


def outcomes_picture(by_day: Sequence[dict[str, Any]]) -> dg.MetadataValue:
    """Runs by day, stacked by outcome."""
    figure, axes = _figure(2.4)
    bottom = [0] * len(by_day)
    for outcome, colour in _COLOURS.items():
        counts = [row[outcome] for row in by_day]
        axes.bar([row["day"] for row in by_day], counts, bottom=bottom, color=colour, label=outcome)
        bottom = [below + count for below, count in zip(bottom, counts, strict=True)]
    axes.set_ylabel("runs")
    axes.legend(fontsize=7, ncols=3, frameon=False)
    axes.tick_params(axis="x", labelsize=7, rotation=30)
    return _markdown(figure, f"Runs by day up to {by_day[-1]['day']}")


def durations_picture(by_job: Sequence[dict[str, Any]]) -> dg.MetadataValue:
    """Median and 95th percentile of each job, on a logarithmic axis: jobs take from a second to hours."""
    timed = [row for row in reversed(by_job) if row["median_seconds"] is not None]
    figure, axes = _figure(1.0 + 0.25 * len(timed))
    for place, row in enumerate(timed):
        low, high = max(row["median_seconds"], 0.1), max(row["p95_seconds"], 0.1)
        axes.plot([low, high], [place, place], color="#4f43dd", linewidth=3, solid_capstyle="round")
        axes.plot([low], [place], "o", color="#4f43dd", markersize=6)
    axes.set_yticks(range(len(timed)), [row["job"] for row in timed], fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("seconds: median ● to 95th percentile", fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return _markdown(figure, "Durations by job")


def _figure(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, height), dpi=80, layout="constrained")
    return figure, figure.add_subplot()


def _markdown(figure: "Figure", title: str) -> dg.MetadataValue:
    figure.axes[0].set_title(title, fontsize=10)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return dg.MetadataValue.md(
        f"![{title}](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"
    )


def _rows(conn: psycopg.Connection, name: str, binds: dict[str, Any]) -> list[dict[str, Any]]:
    return conn.cursor(row_factory=dict_row).execute(statement(name), binds).fetchall()


def _table(rows: Sequence[dict[str, Any]]) -> dg.MetadataValue:
    return dg.MetadataValue.table(
        [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows]
    )


def _cell(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value
