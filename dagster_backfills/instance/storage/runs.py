"""Dagster's storage of runs, made to know whether a run's process lives. Not here: the lock that tells.

A run's own process is the one that says that the run has started, whoever launched it: it takes the lock before that
is written, and says so in the run's log. Only of a run that has said so the lock's absence means anything.
"""

from datetime import datetime
from typing import Any

import dagster as dg
from dagster_postgres import PostgresRunStorage
from psycopg.conninfo import make_conninfo
from sqlalchemy import make_url, text

from dagster_backfills.instance.run_lock import HELD, RunLock

# By these words in a run's log: a tag would be inherited by the run that is made of it.
TOLD = "This process holds a lock while it lives: run monitoring will notice if it dies."
NOT_TOLD = "Run monitoring can't tell whether this process lives: a pooler shares its sessions with others."
_OVER = (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)


class LockedRunStorage(PostgresRunStorage):
    """As the stock one, but the process of a run holds a lock from the run's start to its end."""

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
        if event.event_type in _OVER and run_id in self._locks:
            self._locks.pop(run_id).release()

    def dispose(self) -> None:
        while self._locks:
            self._locks.popitem()[1].release()
        super().dispose()

    def is_lock_held(self, run_id: str) -> bool:
        """Whether a process holds the run's lock now."""
        with self.connect() as conn:
            return bool(conn.execute(text(HELD), {"run_id": run_id}).scalar())

    def is_told_by_lock(self, run_id: str) -> bool:
        """Whether the run's process has said that it holds the lock, and has not taken that back."""
        engine_events = self._instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        messages = [entry.dagster_event.message for entry in engine_events if entry.dagster_event]
        return TOLD in messages and NOT_TOLD not in messages

    def _take_lock(self, run_id: str, job_name: str) -> None:
        def tell(held: bool) -> None:
            message = TOLD if held else NOT_TOLD
            self._instance.report_engine_event(message, run_id=run_id, job_name=job_name)

        self._locks[run_id] = RunLock(self._conninfo, run_id, tell)
        self._locks[run_id].take()

    def _conninfo(self) -> str:
        # The lock lies in the database, whatever schema Dagster's tables lie in.
        plain = make_url(self.postgres_url).set(drivername="postgresql")
        url = plain.difference_update_query(["plugin", "options"]).render_as_string(hide_password=False)
        return make_conninfo(url, password=self._tokens.get_token()) if self._tokens else url
