"""How an import looks in Dagster: metadata of its steps and the materialization of its outcome."""

from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg

from dagster_backfills.domains.kintell.importing.account import ImportJob
from dagster_backfills.domains.kintell.statements import statements

if TYPE_CHECKING:
    from dagster_backfills.domains.kintell.file.register import Preflight
    from dagster_backfills.domains.kintell.rows.dry_run import ImportPreview

SESSIONS = dg.AssetKey(["kintell", "kintell_sessions"])
FREQUENT = 10
SHOWN = 20


def _table(records: list[dict[str, Any]], columns: dict[str, str]) -> dg.MetadataValue:
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    return dg.MetadataValue.table([dg.TableRecord(record) for record in records], schema)


def preflight_metadata(found: "Preflight") -> dict[str, Any]:
    """Missing users (the first of them) and what is wrong in the sample."""
    return {
        "recognized": found.recognized,
        "missing users": found.missing_count,
        "first missing users": _table(
            [{"email": email, "role": role} for email, role in found.missing[:SHOWN]],
            {"email": "string", "role": "string"},
        ),
        "sample rows": found.sample_rows,
        "bad rows in sample": len(found.sample_errors),
        "first bad rows": _table(
            [{"row": row, "error": error} for row, error in found.sample_errors[:SHOWN]],
            {"row": "int", "error": "string"},
        ),
    }


def import_materialization(conn: psycopg.Connection, job: ImportJob) -> dg.AssetMaterialization:
    """The outcome of an import: counts, the ten most frequent errors, where the error file is."""
    kinds = [
        {"error": kind, "rows": rows}
        for kind, rows in statements().frequent_errors(conn, job=job.id, most=FREQUENT)
    ]
    metadata: dict[str, Any] = {
        "job": str(job.id),
        "status": job.status,
        "file": job.file_url,
        "recognized": job.recognized,
        **{name.replace("_", " "): count for name, count in job.counts.items()},
        "missing users": job.missing_users,
        "frequent errors": _table(kinds, {"error": "string", "rows": "int"}),
    }
    if job.error_file:
        local = "://" not in job.error_file
        metadata["error file"] = (
            dg.MetadataValue.path(job.error_file) if local else dg.MetadataValue.url(job.error_file)
        )
    if job.error_message:
        metadata["error"] = job.error_message
    description = (
        f"{job.file_name}: {job.inserted_rows:,} inserted, {job.failed_rows:,} rejected, {job.status}"
    )
    return dg.AssetMaterialization(SESSIONS, description=description, metadata=metadata)


def verdict_metadata(verdict: "ImportPreview", error_file: str) -> dict[str, Any]:
    """What a dry run found; `verdict` has it for programs."""
    plain = {
        "recognized": verdict.recognized,
        "total": verdict.total,
        "new": verdict.new,
        "duplicates": verdict.duplicates,
        "changed": verdict.changed,
        "same": verdict.duplicates - verdict.changed,
        "changes": verdict.changes.most_common(),
        "examples": verdict.examples,
        "failed": verdict.failed,
        "kinds": verdict.kinds.most_common(),
        "errors": verdict.errors,
        "missing_users": len(verdict.missing),
        "missing": dict(list(verdict.missing.items())[:1000]),
        "error_file": error_file,
    }
    return {
        "verdict": dg.MetadataValue.json(plain),
        "recognized": verdict.recognized,
        "rows": verdict.total,
        "new": verdict.new,
        "there, and different": verdict.changed,
        "there, and the same": verdict.duplicates - verdict.changed,
        "would be rejected": verdict.failed,
        "what differs": _table(
            [
                {"column": column, "sessions": rows, "session": session, "is": was, "in the file": becomes}
                for column, rows in verdict.changes.most_common()
                for session, was, becomes in verdict.examples[column]
            ],
            {
                "column": "string",
                "sessions": "int",
                "session": "string",
                "is": "string",
                "in the file": "string",
            },
        ),
        "frequent errors": _table(
            [{"error": kind, "rows": rows} for kind, rows in verdict.kinds.most_common(FREQUENT)],
            {"error": "string", "rows": "int"},
        ),
        "first rejected rows": _table(
            [{"row": row, "error": error} for row, error in verdict.errors[:SHOWN]],
            {"row": "int", "error": "string"},
        ),
        "missing users": len(verdict.missing),
    }
