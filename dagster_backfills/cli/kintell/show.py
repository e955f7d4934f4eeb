"""How an import job looks on the terminal, in a pipe and as JSON."""

from dataclasses import asdict
from typing import Any

from dagster_backfills.cli.database import database
from dagster_backfills.cli.output import print_fields, print_json, print_table, say
from dagster_backfills.domains.kintell.after.error_file import frequent_errors
from dagster_backfills.domains.kintell.importing.account import ImportJob


def doing(job: ImportJob) -> str:
    """The status, and what goes on beside it."""
    return f"{job.status} ({job.activity})" if job.activity and job.activity != "import" else job.status


def plain(job: ImportJob) -> dict[str, Any]:
    """A job for programs."""
    return {name: value for name, value in asdict(job).items() if name not in ("file_stamp", "delimiter")}


def show_job(job: ImportJob, json: bool) -> None:
    """One job with all that is known of it, and its most frequent errors."""
    with database() as conn:
        errors = [asdict(error) for error in frequent_errors(conn, job.id)]
    if json:
        print_json(plain(job) | {"frequent_errors": errors})
        return
    lines = [
        ("job", job.id),
        ("file", job.file_url),
        ("recognized", job.recognized),
        ("status", doing(job)),
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
    show_frequent(errors)


def show_frequent(errors: list[dict[str, Any]]) -> None:
    """The most frequent errors, with the first row of each."""
    if errors:
        told = [(each["error"], each["rows"], each["row"], each["value"]) for each in errors]
        print_table(["error", "rows", "first row", "its value"], told, title="most frequent errors")


def show_verdict(verdict: dict[str, Any]) -> None:
    """What an import would do, as a dry run found it."""
    names = ["total", "new", "changed", "same", "failed", "missing_users"]
    shown = ["rows", "new", "changed", "the same", "rejected", "missing users"]
    print_table(shown, [[verdict[name] for name in names]])
    if verdict["changes"]:
        told = [
            (name, change["sessions"], example["session_id"], example["before"], example["after"])
            for name, change in verdict["changes"].items()
            for example in change["examples"]
        ]
        print_table(["column", "changed", "for example", "before", "after"], told, ids=["for example"])
        if verdict["on_duplicate"] == "skip":
            say("Changed sessions are kept as they are; --on-duplicate update rewrites them.")
    show_frequent(verdict["frequent_errors"])
    if verdict["errors"]:
        print_table(["row", "error"], verdict["errors"][:10], title="the first rejected rows", fold=True)


def show_jobs(jobs: list[ImportJob], json: bool, wide: bool = False) -> None:
    """One line a job."""
    if json:
        print_json([plain(job) for job in jobs])
        return
    print_table(
        ["job", "file", "status", "rejected", "rows", "processed", "inserted", "updated", "skipped", "created"],
        [
            (j.id, j.file_name, doing(j), j.failed_rows, j.total_rows, j.processed_rows, j.inserted_left,
             j.updated_left, j.skipped_rows, j.created_at)
            for j in jobs
        ],
        ids=["job"],
        wide=wide,
    )  # fmt: skip
