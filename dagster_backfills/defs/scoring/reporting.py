"""What a day's numbers look like to people: metadata of a materialization, the histogram, the job's closing line."""

import base64
import io
from typing import Any

import dagster as dg
import psycopg

from dagster_backfills.defs.scoring.days import Coverage
from dagster_backfills.defs.scoring.features import statement
from dagster_backfills.defs.scoring.tables import ACTIONS, CHURN, COMMITMENT
from dagster_backfills.lib.engine.model import Counts

WHAT = {COMMITMENT.asset: "members", CHURN.asset: "members", ACTIONS.asset: "coaches"}
_BANDS = ("low", "moderate", "good", "high")


def day_metadata(conn: psycopg.Connection, asset: str, day: str, *, picture: bool) -> dict[str, Any]:
    """What one day holds, counted in the database."""
    summaries = {COMMITMENT.asset: _commitment, CHURN.asset: _churn, ACTIONS.asset: _actions}
    entries = summaries[asset](conn, day, picture)
    conn.commit()
    return entries


def write_metadata(counts: Counts, coverage: Coverage, what: str) -> dict[str, Any]:
    """What the run did to the day."""
    return {
        "dagster/partition_row_count": counts.rows,
        "rows_inserted": counts.inserted,
        "rows_updated": counts.updated,
        "rows_unchanged": counts.unchanged,
        "rows_deleted": counts.deleted,
        f"{what}_due": coverage.expected,
        "failures": coverage.failed,
    }


def closing_line(asset: str, day: str, counts: Counts, coverage: Coverage, seconds: float) -> str:
    """The one line that says how a job went."""
    written = counts.inserted + counts.updated
    what = WHAT[asset]
    made = (
        f"{counts.inserted:,} actions created, {counts.updated:,} updated"
        if asset == ACTIONS.asset
        else f"{written:,} updated"
    )
    return (
        f"{asset} {day}: {coverage.done + coverage.failed:,} {what} processed, {made}, "
        f"{coverage.failed:,} errors, {seconds:.1f} s"
    )


def _scores(conn: psycopg.Connection, day: str) -> dict[int, int]:
    return dict(conn.execute(statement("commitment_histogram"), {"day": day}).fetchall())


def _commitment(conn: psycopg.Connection, day: str, picture: bool) -> dict[str, Any]:
    import numpy as np

    from dagster_backfills.defs.scoring.rules import band

    by_score = _scores(conn, day)
    total = sum(by_score.values())
    entries: dict[str, Any] = {"members_scored": total}
    bands = band(np.array(list(by_score), dtype="int64"))
    counted = dict.fromkeys(_BANDS, 0)
    for name, members in zip(bands, by_score.values(), strict=True):
        counted[str(name)] += members
    entries |= {f"band_{name}": members for name, members in counted.items()}
    if total:
        entries["mean_score"] = round(sum(s * n for s, n in by_score.items()) / total, 2)
        if picture:
            entries["histogram"] = dg.MetadataValue.md(histogram(by_score, f"Commitment scores of {day}"))
    return entries


def _churn(conn: psycopg.Connection, day: str, picture: bool) -> dict[str, Any]:
    rows = conn.execute(statement("churn_summary"), {"day": day}).fetchall()
    counted = dict.fromkeys(("none", "low", "medium", "high"), 0) | {level: n for level, n, _ in rows}
    total = sum(counted.values())
    entries: dict[str, Any] = {"members_scored": total} | {f"risk_{lv}": n for lv, n in counted.items()}
    if total:
        entries["mean_score"] = round(float(sum(n * mean for _, n, mean in rows)) / total, 2)
    return entries


def _actions(conn: psycopg.Connection, day: str, picture: bool) -> dict[str, Any]:
    rows = conn.execute(statement("actions_summary"), {"day": day}).fetchall()
    entries: dict[str, Any] = {"actions": sum(n for kind, n, _ in rows if kind is not None)}
    entries["coaches_with_actions"] = next((coaches for kind, _, coaches in rows if kind is None), 0)
    return entries | {f"actions_{kind}": n for kind, n, _ in rows if kind is not None}


def histogram(by_score: dict[int, int], title: str) -> str:
    """A Markdown picture of members by score, in bars of five points. Matplotlib without a display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.4), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    axes.hist(
        list(by_score),
        bins=[*range(0, 100, 5), 101],
        weights=list(by_score.values()),
        color="#4f43dd",
        rwidth=0.9,
    )
    axes.set_xlabel("score")
    axes.set_ylabel("members")
    axes.set_title(title, fontsize=10)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return f"![{title}](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"
