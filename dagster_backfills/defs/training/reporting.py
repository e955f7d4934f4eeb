"""What a run did and where its organizations stand, as numbers and tables. Nothing is decided here."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import dagster as dg
import psycopg
from psycopg.rows import dict_row

from dagster_backfills.domains.training.status import ASSETS, STATEMENTS, RunReport, run_report

_SHOWN = 20


def run_metadata(conn: psycopg.Connection[Any], run_id: str) -> dict[str, Any]:
    """The report as Dagster metadata, however many organizations the run had; nothing for no work."""
    binds = {"run_id": run_id, "assets": ASSETS, "completions": ASSETS[0], "shown": _SHOWN}
    report = run_report(conn, run_id)
    with conn.cursor(row_factory=dict_row) as cursor:
        organizations = cursor.execute(STATEMENTS["run_organizations"], binds).fetchall()
        failures = cursor.execute(STATEMENTS["run_failures"], binds).fetchall()
    return report_metadata(report, organizations, failures) if report.organizations else {}


def report_metadata(
    report: RunReport, organizations: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Dagster metadata: the totals, then the largest organizations and the first failures where there are any."""
    metadata: dict[str, Any] = {field.name: getattr(report, field.name) for field in fields(report)}
    metadata["seconds"] = round(report.seconds, 3)
    if organizations:
        metadata["largest_organizations"] = _table(organizations)
    if failures:
        metadata["first_failures"] = _table(failures)
    return metadata


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])
