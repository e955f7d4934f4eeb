"""Dagster's run storage, extended to know whether a run's process is alive. Not here: the lock (`run_lock`).

A run's own process reports that the run has started. Before that is stored, it takes the lock and logs that in the
run's events. A missing lock is meaningful only for runs with that event.
"""

from datetime import datetime
from typing import Any

import dagster as dg
from dagster_postgres import PostgresRunStorage
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url, text

from dagster_backfills.instance.run_lock import HELD, RunLock

# Events and not tags, because a run that retries this one would inherit its tags.
LOCK_HELD = "This process holds a lock while it is alive, so run monitoring detects if it dies."
NO_LOCK = "Run monitoring can't detect whether this process is alive, because a pooler shares its sessions."
_ENDED = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)


class LockedRunStorage(PostgresRunStorage):
    """Like the stock storage, but a run's process holds a lock from the run's start to its end."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._tokens = named.get("token_provider")
        self._locks: dict[str, RunLock] = {}

    def handle_run_event(
        self, run_id: str, event: dg.DagsterEvent, update_timestamp: datetime | None = None
    ) -> None:
        if event.event_type == dg.DagsterEventType.RUN_START and run_id not in self._locks:
            self._take_lock(run_id, event.job_name)
        super().handle_run_event(run_id, event, update_timestamp)
        if event.event_type in _ENDED and run_id in self._locks:
            self._locks.pop(run_id).release()

    def dispose(self) -> None:
        while self._locks:
            self._locks.popitem()[1].release()
        super().dispose()

    def is_lock_held(self, run_id: str) -> bool:
        """Whether a process holds the run's lock now."""
        with self.connect() as conn:
            return bool(conn.execute(text(HELD), {"run_id": run_id}).scalar())

    def has_lock(self, run_id: str) -> bool:
        """Whether the run's process has reported that it holds the lock, and has not revoked that."""
        engine_events = self._instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        messages = [entry.dagster_event.message for entry in engine_events if entry.dagster_event]
        return LOCK_HELD in messages and NO_LOCK not in messages

    def _take_lock(self, run_id: str, job_name: str) -> None:
        def report(held: bool) -> None:
            message = LOCK_HELD if held else NO_LOCK
            self._instance.report_engine_event(message, run_id=run_id, job_name=job_name)

        self._locks[run_id] = RunLock(self._conninfo, run_id, report)
        self._locks[run_id].take()

    def _conninfo(self) -> str:
        # Advisory locks belong to the database, so the schema of Dagster's tables does not matter.
        plain = make_url(self.postgres_url).set(drivername="postgresql")
        url = plain.difference_update_query(["plugin", "options"]).render_as_string(hide_password=False)
        return make_conninfo(url, password=self._tokens.get_token()) if self._tokens else url
