"""How an import looks in Dagster: metadata of its steps and the materialization of its outcome."""

from collections.abc import Iterable
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg

from dagster_backfills.dagster.tables import markdown
from dagster_backfills.domains.kintell.after.error_file import frequent_errors
from dagster_backfills.domains.kintell.importing.account import ImportJob
from dagster_backfills.domains.kintell.rows.verdict import FrequentError, ImportPreview

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


def preview_table(verdict: ImportPreview) -> str:
    """What an import would make of the sessions, and in which columns those that are there differ."""
    changed = "changed: rewritten" if verdict.on_duplicate == "update" else "changed: kept as they are"
    counts = {
        "new": verdict.new,
        changed: verdict.changed,
        "the same": verdict.same,
        "rejected": verdict.failed,
    }
    text = markdown(["sessions", "rows"], list(counts.items()))
    if verdict.changes:
        told = [
            (name, change.sessions, example.session_id, example.before or "–", example.after or "–")
            for name, change in verdict.changes.items()
            for example in change.examples
        ]
        text += "\n\n" + markdown(["column", "changed", "for example", "before", "after"], told)
    return text


def preflight_metadata(found: "Preflight") -> dict[str, Any]:
    """Missing users (the first of them) and what is wrong in the sample."""
    return {
        "recognized": found.recognized,
        "missing users": found.missing_count,
        "first missing users": _table(found.missing[:SHOWN], {"email": "string", "role": "string"}),
        "sample rows": found.sample_rows,
        "bad rows in sample": len(found.sample_errors),
        "first bad rows": _table(found.sample_errors[:SHOWN], {"row": "int", "error": "string"}),
    }


def import_materialization(conn: psycopg.Connection, job: ImportJob) -> dg.AssetMaterialization:
    """The outcome of an import: counts, the ten most frequent errors, where the error file is."""
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
        local = "://" not in job.error_file
        metadata["error file"] = (
            dg.MetadataValue.path(job.error_file) if local else dg.MetadataValue.url(job.error_file)
        )
    if job.error_message:
        metadata["error"] = job.error_message
    return dg.AssetMaterialization(SESSIONS, description=f"{job.file_name}: {job.outcome}", metadata=metadata)


def verdict_metadata(verdict: ImportPreview, error_file: str) -> dict[str, Any]:
    """What a dry run found; `verdict` has it for programs."""
    return {
        "verdict": dg.MetadataValue.json(verdict.plain() | {"error_file": error_file}),
        "preview": dg.MetadataValue.md(preview_table(verdict)),
        "recognized": verdict.recognized,
        "rows": verdict.total,
        "new": verdict.new,
        "duplicates": verdict.duplicates,
        "changed": verdict.changed,
        "would be rejected": verdict.failed,
        "frequent errors": _frequent(verdict.frequent()),
        "first rejected rows": _table(verdict.errors[:SHOWN], {"row": "int", "error": "string"}),
        "missing users": len(verdict.missing),
    }
