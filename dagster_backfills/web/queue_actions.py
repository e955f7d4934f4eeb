"""Background jobs, as pages and API put them in, cancel and retry them, and have them worked off."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import psycopg
from pydantic.alias_generators import to_camel

from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.errors import UnknownJobType
from dagster_backfills.domains.queue.registry import known_hint
from dagster_backfills.domains.queue.settings import DrainPolicy
from dagster_backfills.instance.launching import Runs
from dagster_backfills.web.auth import Identity
from dagster_backfills.web.database import Database
from dagster_backfills.web.refusals import Refused, not_found

DRAIN = "drain_background_jobs"


@dataclass(frozen=True)
class QueueActions:
    """A job of another owner's is not there."""

    database: Database
    runs: Runs

    def find(self, conn: psycopg.Connection[Any], job: str, who: Identity) -> dict[str, Any]:
        """Everything about a job. Raises `Refused` (404) where there is none of theirs."""
        try:
            found = queue.rows(conn, "one_job", job_id=UUID(job))
        except ValueError:
            found = []
        if not found or not who.owns(found[0]):
            raise not_found(f"job {job}")
        return found[0]

    def enqueue(
        self, who: Identity, job_type: str, input_data: dict[str, Any], owner: queue.Owner, **more: Any
    ) -> UUID:
        """Put one in. `more` is what `queue.enqueue` takes. Raises UserError for an input that does not fit."""
        for column, own in who.mine.items():
            if getattr(owner, column) not in (None, own):
                raise Refused(403, f"{to_camel(column)} is another's.", f"This token puts in jobs of {own}.")
        owner = replace(owner, **who.mine)
        with self.database() as conn:
            made = queue.enqueue(conn, job_type, input_data, owner=owner, **more)
            if who.mine and not who.owns(queue.rows(conn, "one_job", job_id=made)[0]):
                raise Refused(409, "This unique key is taken.", "Choose another.")
        return made

    def cancel(self, job: str, who: Identity, reason: str = "") -> dict[str, Any]:
        """Cancel one that waits or is at work. Raises `Refused` (409) for one that has ended."""
        with self.database() as conn:
            found = self.find(conn, job, who)
            before = queue.cancel(conn, found["id"], reason or None)
            if before not in ("pending", "processing"):
                raise Refused(409, f"Job {job} is {before} already.")
            return self.find(conn, job, who)

    def retry(self, job: str, who: Identity) -> dict[str, Any]:
        """Try a failed one again, with all its retries. Raises `Refused` (409) for one that has not failed."""
        with self.database() as conn:
            found = self.find(conn, job, who)
            if not queue.retry(conn, [found["id"]]):
                raise Refused(409, f"Job {job} is {found['status']}: only failed jobs can be retried.")
            return self.find(conn, job, who)

    def process(self, job_types: Sequence[str], who: str) -> tuple[str | None, dict[str, int]]:
        """See to it that a run works the queue off: the one at work, or a new one where these wait.

        Returns the run and how many wait, by type. A run works off whatever waits. Raises UnknownJobType.
        """
        with self.database() as conn:
            known = [row["job_type"] for row in queue.rows(conn, "known_types")]
            for name in job_types:
                if name not in known:
                    raise UnknownJobType(f"There is no job type {name!r}.", known_hint(name, known))
            queue.take_back_expired(conn)
            wanted = list(job_types or known)
            rows = queue.rows(conn, "waiting_by_type", job_types=wanted)
            [work] = queue.rows(conn, "waiting_work")
        waiting = dict.fromkeys(wanted, 0) | {row["job_type"]: row["waiting"] for row in rows}
        with self.runs.one_at_a_time:
            active, policy = self.runs.unfinished(DRAIN, {}), DrainPolicy.from_environment()
            due = sum(waiting.values())
            if not policy.should_launch(due, work["oldest_seconds"], int(active is not None)):
                return active, waiting
            return self.runs.submit(DRAIN, {"concurrency": policy.concurrency}, who), waiting
