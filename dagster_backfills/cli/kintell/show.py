"""Prints import jobs and previews, as text or JSON."""

from dataclasses import asdict
from typing import Any

from dagster_backfills.cli.database import database
from dagster_backfills.cli.output import print_fields, print_json, print_table, say
from dagster_backfills.domains.kintell.after.error_file import frequent_errors
from dagster_backfills.domains.kintell.importing.jobs import ImportJob
from dagster_backfills.domains.kintell.rows.preview import FrequentError, ImportPreview


def status_text(job: ImportJob) -> str:
    """The status, with a running replay or rollback."""
    return f"{job.status} ({job.activity})" if job.activity and job.activity != "import" else job.status


def as_dict(job: ImportJob) -> dict[str, Any]:
    """The job as JSON-compatible data."""
    return {name: value for name, value in asdict(job).items() if name not in ("file_stamp", "delimiter")}


def show_job(job: ImportJob, json: bool) -> None:
    """Print all details of a job and its most frequent errors."""
    with database() as conn:
        errors = frequent_errors(conn, job.id)
    if json:
        print_json(as_dict(job) | {"frequent_errors": [asdict(error) for error in errors]})
        return
    lines = [
        ("job", job.id),
        ("file", job.file_url),
        ("recognized", job.recognized),
        ("status", status_text(job)),
        ("processed", job.progress),
        ("inserted", job.inserted_left),
        ("updated", job.updated_left),
        ("skipped", job.skipped_rows),
        ("rejected", job.failed_rows),
        ("missing users", job.missing_users),
        ("attempt", job.attempt),
        ("heartbeat", job.heartbeat_at),
        ("run", job.run_id),
        ("error file", job.error_file),
        ("error", job.error_message),
    ]
    if job.rollback_started_at:
        lines += job.undone.items()
    print_fields(lines)
    _show_frequent(errors)


def _show_frequent(errors: list[FrequentError]) -> None:
    if errors:
        rows = [(each.error, each.rows, each.row, each.value) for each in errors]
        print_table(["error", "rows", "first row", "its value"], rows, title="most frequent errors")


def show_preview(preview: ImportPreview) -> None:
    """Print the result of a dry run."""
    counts = (preview.total, preview.new, preview.changed, preview.same, preview.failed, len(preview.missing))
    print_table(["rows", "new", "changed", "the same", "rejected", "missing users"], [counts])
    if preview.changes:
        print_table(
            ["column", "changed", "for example", "before", "after"], preview.examples(), ids=["for example"]
        )
        if preview.on_duplicate == "skip":
            say("Changed sessions will not be updated. Use --on-duplicate update to update them.")
    _show_frequent(preview.frequent())
    if preview.errors:
        print_table(["row", "error"], preview.errors[:10], title="the first rejected rows", fold=True)


def show_jobs(jobs: list[ImportJob], json: bool, wide: bool = False) -> None:
    """Print one line per job."""
    if json:
        print_json([as_dict(job) for job in jobs])
        return
    print_table(
        ["job", "file", "status", "rejected", "rows", "processed", "inserted", "updated", "skipped", "created"],
        [
            (j.id, j.file_name, status_text(j), j.failed_rows, j.total_rows, j.processed_rows, j.inserted_left,
             j.updated_left, j.skipped_rows, j.created_at)
            for j in jobs
        ],
        ids=["job"],
        wide=wide,
    )  # fmt: skip
