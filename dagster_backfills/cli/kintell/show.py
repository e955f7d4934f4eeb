"""How an import job looks on the terminal, in a pipe and as JSON."""

from dataclasses import asdict
from typing import Any

from dagster_backfills.cli.output import print_fields, print_json, print_table
from dagster_backfills.domains.kintell.importing.account import ImportJob


def doing(job: ImportJob) -> str:
    """The status, and what goes on beside it."""
    return f"{job.status} ({job.activity})" if job.activity and job.activity != "import" else job.status


def plain(job: ImportJob) -> dict[str, Any]:
    """A job for programs."""
    return {name: value for name, value in asdict(job).items() if name not in ("file_stamp", "delimiter")}


def show_job(job: ImportJob, json: bool) -> None:
    """One job with all that is known of it."""
    if json:
        print_json(plain(job))
        return
    lines = [
        ("job", job.id),
        ("file", job.file_url),
        ("recognized", job.recognized),
        ("status", doing(job)),
        ("processed", job.progress),
        ("inserted", job.inserted_rows),
        ("updated", job.updated_rows),
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
        lines += [("removed", job.removed_rows), ("restored", job.restored_rows), ("kept", job.kept_rows)]
    print_fields(lines)


def show_jobs(jobs: list[ImportJob], json: bool, wide: bool = False) -> None:
    """One line a job."""
    if json:
        print_json([plain(job) for job in jobs])
        return
    print_table(
        ["job", "file", "status", "rejected", "rows", "processed", "inserted", "updated", "skipped", "created"],
        [
            (j.id, j.file_name, doing(j), j.failed_rows, j.total_rows, j.processed_rows, j.inserted_rows,
             j.updated_rows, j.skipped_rows, j.created_at)
            for j in jobs
        ],
        ids=["job"],
        wide=wide,
    )  # fmt: skip
