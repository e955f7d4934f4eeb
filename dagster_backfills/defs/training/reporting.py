"""What a run did and where its organizations stand, as numbers, a table and a picture. Nothing is decided here."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
from psycopg.rows import class_row, dict_row

from dagster_backfills.lib.postgres.queries import load_queries

_ASSETS = ["training/employee_training_video_completions", "training/organization_training_progress"]
_DRAWN = 20  # bars that are still readable
_NAME = 28  # characters of a name beside its bar
_DONE, _OPEN = "#2a7f62", "#d9dee3"


@dataclass(frozen=True)
class RunReport:
    """Totals of one run: units processed, records created and already there, failures, seconds of its steps."""

    organizations: int
    members: int
    videos: int
    records_created: int
    records_already_there: int
    failures: int
    seconds: float


def run_report(conn: psycopg.Connection[Any], run_id: str) -> RunReport:
    """What the run has done so far."""
    binds = {"run_id": run_id, "assets": _ASSETS, "completions": _ASSETS[0]}
    with conn.cursor(row_factory=class_row(RunReport)) as cursor:
        row = cursor.execute(_sql("run_totals"), binds).fetchone()
    assert row is not None
    return row


def run_metadata(conn: psycopg.Connection[Any], run_id: str) -> dict[str, Any]:
    """The report as Dagster metadata, however many organizations the run had; nothing for no work."""
    binds = {"run_id": run_id, "assets": _ASSETS, "completions": _ASSETS[0], "shown": _DRAWN}
    report = run_report(conn, run_id)
    with conn.cursor(row_factory=dict_row) as cursor:
        organizations = cursor.execute(_sql("run_organizations"), binds).fetchall()
        failures = cursor.execute(_sql("run_failures"), binds).fetchall()
    return report_metadata(report, organizations, failures) if report.organizations else {}


def report_metadata(
    report: RunReport, organizations: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Dagster metadata: the totals, then the largest organizations and the first failures where there are any."""
    metadata: dict[str, Any] = {field.name: getattr(report, field.name) for field in fields(report)}
    metadata["seconds"] = round(report.seconds, 3)
    if organizations:
        metadata["progress"] = dg.MetadataValue.md(picture(organizations))
        metadata["largest_organizations"] = _table(organizations)
    if failures:
        metadata["first_failures"] = _table(failures)
    return metadata


def picture(organizations: Sequence[Mapping[str, Any]]) -> str:
    """A bar an organization, completed in front of open, as an image in Markdown that needs no file.

    Rows have `organization_name`, `percent`, `members`, `failed_members`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.0 + 0.32 * len(organizations)), dpi=80, layout="constrained")
    axes = figure.subplots()
    positions = range(len(organizations))
    percents = [row["percent"] for row in organizations]
    axes.barh(positions, [100] * len(organizations), color=_OPEN, height=0.62)
    axes.barh(positions, percents, color=_DONE, height=0.62)
    for position, row in zip(positions, organizations, strict=True):
        failed = f", {row['failed_members']:,} failed" if row["failed_members"] else ""
        label = f"{row['percent']} %  ({row['members']:,} members{failed})"
        axes.text(101, position, _literal(label), va="center", fontsize=8, color="#333333")
    axes.set_yticks(
        positions, [_literal(_short(row["organization_name"])) for row in organizations], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 135)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"], fontsize=8)
    axes.set_title("Videos completed, by organization", loc="left", fontsize=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    buffer = io.BytesIO()
    _quietly(lambda: figure.savefig(buffer, format="png"))
    return (
        f"![progress by organization](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
    )


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _literal(text: str) -> str:
    # A pair of dollar signs would be taken for a formula.
    return text.replace("$", r"\$")


def _quietly(draw: Any) -> None:
    """Draw without a warning for each letter that the font has not: a box stands for it in the picture."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        draw()


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])


def _sql(name: str) -> bytes:
    return load_queries(Path(__file__).with_name("status.sql"))[name].encode()
