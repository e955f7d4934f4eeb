"""Metadata and materializations of imports, as shown in Dagster."""

from collections.abc import Iterable
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg

from dagster_backfills.dagster.tables import markdown
from dagster_backfills.domains.kintell.after.error_file import frequent_errors
from dagster_backfills.domains.kintell.importing.jobs import ImportJob
from dagster_backfills.domains.kintell.rows.preview import FrequentError, ImportPreview

if TYPE_CHECKING:
    from dagster_backfills.domains.kintell.file.register import Preflight

SESSIONS = dg.AssetKey(["kintell", "kintell_sessions"])
SHOWN = 20


def _table(rows: Iterable[tuple[Any, ...]], columns: dict[str, str]) -> dg.MetadataValue:
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows], schema
    )


def _frequent(errors: Iterable[FrequentError]) -> dg.MetadataValue:
    kinds = {"error": "string", "rows": "int", "row": "int", "value": "string", "message": "string"}
    return _table([astuple(error) for error in errors], kinds)


def _location(url: str) -> dg.MetadataValue:
    return dg.MetadataValue.url(url) if "://" in url else dg.MetadataValue.path(url)


def preview_table(preview: ImportPreview) -> str:
    """A Markdown table of what an import would do, and of the columns in which existing sessions differ."""
    changed = "changed: rewritten" if preview.on_duplicate == "update" else "changed: kept as they are"
    counts = {
        "new": preview.new,
        changed: preview.changed,
        "the same": preview.same,
        "rejected": preview.failed,
    }
    text = markdown(["sessions", "rows"], list(counts.items()))
    if preview.changes:
        examples = [(*which, before or "–", after or "–") for *which, before, after in preview.examples()]
        text += "\n\n" + markdown(["column", "changed", "for example", "before", "after"], examples)
    return text


def preflight_metadata(job: ImportJob, checks: "Preflight") -> dict[str, Any]:
    """The format, the missing users and the errors in the sample."""
    return {
        "recognized": job.recognized,
        "missing users": len(checks.missing),
        "first missing users": _table(checks.missing[:SHOWN], {"email": "string", "role": "string"}),
        "bad rows among the first 1,000": len(checks.sample_errors),
        "first bad rows": _table(checks.sample_errors[:SHOWN], {"row": "int", "error": "string"}),
    }


def import_materialization(conn: psycopg.Connection, job: ImportJob) -> dg.AssetMaterialization:
    """The result of an import: counters, the ten most frequent errors, the error file."""
    metadata: dict[str, Any] = {
        "job": str(job.id),
        "status": job.status,
        "file": job.file_url,
        "recognized": job.recognized,
        **{name.replace("_", " "): count for name, count in job.counts.items()},
        **(job.undone if job.rollback_started_at else {}),
        "missing users": job.missing_users,
        "frequent errors": _frequent(frequent_errors(conn, job.id)),
    }
    if job.error_file:
        metadata["error file"] = _location(job.error_file)
    if job.error_message:
        metadata["error"] = job.error_message
    return dg.AssetMaterialization(SESSIONS, description=f"{job.file_name}: {job.outcome}", metadata=metadata)


def preview_metadata(preview: ImportPreview, error_file: str) -> dict[str, Any]:
    """The result of a dry run."""
    return {
        "error file": _location(error_file),
        "preview": dg.MetadataValue.md(preview_table(preview)),
        "recognized": preview.recognized,
        "rows": preview.total,
        "new": preview.new,
        "duplicates": preview.duplicates,
        "changed": preview.changed,
        "would be rejected": preview.failed,
        "frequent errors": _frequent(preview.frequent()),
        "first rejected rows": _table(preview.errors[:SHOWN], {"row": "int", "error": "string"}),
        "missing users": len(preview.missing),
    }
