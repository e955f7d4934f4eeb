"""Actions on background jobs: enqueue, cancel, retry and process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import psycopg
from pydantic.alias_generators import to_camel

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.settings import DrainPolicy
from dagster_backfills.instance.launching import Runs
from dagster_backfills.web.auth import Identity
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused, not_found

DRAIN = "drain_background_jobs"


@dataclass(frozen=True)
class QueueActions:
    """Actions on background jobs. To a caller limited to one owner, other jobs do not exist."""

    database: Database
    runs: Runs

    def find(self, conn: psycopg.Connection[Any], job: str, who: Identity) -> dict[str, Any]:
        """A job with all columns. Raises `Refused` (404) if there is none that the caller owns."""
        try:
            rows = queue.rows(conn, "one_job", job_id=UUID(job))
        except ValueError:
            rows = []
        if not rows or not who.owns(rows[0]):
            raise not_found(f"job {job}")
        return rows[0]

    def enqueue(
        self, who: Identity, job_type: str, input_data: dict[str, Any], owner: queue.Owner, **more: Any
    ) -> UUID:
        """Enqueue a job. `more`: arguments of `queue.enqueue`. Raises UserError for an invalid input."""
        for column, own in who.mine.items():
            if getattr(owner, column) not in (None, own):
                message = f"This token may not enqueue jobs for another {to_camel(column)}."
                raise Refused(403, message, f"Use {own}, or omit it.")
        owner = replace(owner, **who.mine)
        with self.database() as conn:
            job = queue.enqueue(conn, job_type, input_data, owner=owner, **more)
            if who.mine and not who.owns(queue.rows(conn, "one_job", job_id=job)[0]):
                raise Refused(409, "This unique key is already in use.", "Choose another one.")
        return job

    def cancel(self, job: str, who: Identity, reason: str = "") -> dict[str, Any]:
        """Cancel a pending or processing job. Raises `Refused` (409) if it has ended."""
        with self.database() as conn:
            row = self.find(conn, job, who)
            before = queue.cancel(conn, row["id"], reason or None)
            if before not in ("pending", "processing"):
                raise Refused(409, f"Job {job} is already {before}.")
            return self.find(conn, job, who)

    def retry(self, job: str, who: Identity) -> dict[str, Any]:
        """Retry a failed job, with all its retries. Raises `Refused` (409) if it has not failed."""
        with self.database() as conn:
            row = self.find(conn, job, who)
            if not queue.retry(conn, [row["id"]]):
                raise Refused(409, f"Job {job} is {row['status']}: only failed jobs can be retried.")
            return self.find(conn, job, who)

    def process(self, job_types: Sequence[str], who: str) -> tuple[str | None, dict[str, int]]:
        """Make sure that a run processes the queue: the unfinished one, or a new one if jobs of these types wait.

        Returns the run and the number of waiting jobs by type. A run processes all types. Raises UnknownJobType.
        """
        with self.database() as conn:
            queue.check_types(conn, job_types)
            queue.take_back_expired(conn)
            types = [
                row for row in queue.rows(conn, "metrics") if row["job_type"] in job_types or not job_types
            ]
        waiting = dict.fromkeys(job_types, 0) | {row["job_type"]: row["waiting"] for row in types}
        oldest = max((row["oldest_waiting_seconds"] for row in types), default=0.0)
        with self.runs.one_at_a_time:
            active, policy = self.runs.unfinished(DRAIN, {}), DrainPolicy.from_environment()
            if not policy.should_launch(sum(waiting.values()), oldest, int(active is not None)):
                return active, waiting
            return self.runs.submit(DRAIN, {"concurrency": policy.concurrency}, who), waiting
