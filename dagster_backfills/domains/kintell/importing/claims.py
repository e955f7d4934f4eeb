"""Claims on import jobs: one attempt at a time per job, fenced by its attempt number and kept alive by a heartbeat.

A claim increments the job's attempt, and every write is conditional on that number. The claim's connection carries the
attempt in its application_name: a killed worker is detected at once, a suspended one when its lease expires.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.importing.jobs import LEASE_SECONDS, load_job
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.engine.failures import describe
from dagster_backfills.errors import UserError
from dagster_backfills.postgres import connection
from dagster_backfills.redact import redact

MAX_IMPORTS = 4
CLAIM_RETRY_SECONDS = 2.0


class JobBusy(UserError):
    """Another worker holds the job and is alive."""


class TooManyImports(UserError):
    """The maximum number of concurrent imports is running."""


class ClaimLost(UserError):
    """Another attempt took the job over, or it was paused or cancelled. This worker may not write any more."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


def connect(url: str, name: str, lease: float) -> psycopg.Connection:
    """A worker's connection. It detects a broken network; Postgres ends it if a transaction idles past the lease."""
    conn = connection.connect(
        url,
        autocommit=True,
        application_name=name,
        connect_timeout=10,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=30_000,
    )
    conn.execute(
        "select set_config('idle_in_transaction_session_timeout', %s, false), set_config('lock_timeout', %s, false)",
        [f"{int(lease * 1000)}ms", f"{int(lease * 500)}ms"],
    )
    return conn


class Claim:
    """The right to write to `job` as `attempt`. A context manager that releases the job on exit."""

    def __init__(
        self,
        url: str,
        job: UUID,
        activity: str,
        *,
        run_id: str | None = None,
        lease: float = LEASE_SECONDS,
        max_imports: int = MAX_IMPORTS,
    ) -> None:
        self.url, self.job, self.activity, self.lease = url, job, activity, lease
        self.attempt = 0
        self._conn = connect(url, f"kintell-claim {job}", lease)
        try:
            self._claim_with_retries(run_id, max_imports)
        except BaseException:
            self._conn.close()
            raise
        self._done = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="kintell-heartbeat", daemon=True)
        self._beating.start()

    def _name(self) -> str:
        return f"kintell {self.job} {self.attempt}"

    def connect(self) -> psycopg.Connection:
        """Open another connection for this worker. A later attempt that takes the job over terminates it."""
        return connect(self.url, self._name(), self.lease)

    def _claim_with_retries(self, run_id: str | None, max_imports: int) -> None:
        """Retry briefly: the connection of a worker that was just killed takes a moment to close."""
        deadline = time.monotonic() + CLAIM_RETRY_SECONDS
        while True:
            try:
                return self._claim(run_id, max_imports)
            except JobBusy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _claim(self, run_id: str | None, max_imports: int) -> None:
        conn, binds = self._conn, {"job": self.job, "lease": self.lease}
        with conn.transaction():
            STATEMENTS.lock_claims(conn)
            job = load_job(conn, self.job)
            job.check_claimable(self.activity)
            if (age := STATEMENTS.heartbeat_age(conn, **binds)) is not None:
                raise JobBusy(
                    f"Job {job.id} is held by attempt {job.attempt} ({job.activity}), heartbeat {age:.0f} s ago",
                    hint=f"It continues in run {job.run_id}." if job.run_id else "",
                )
            if self.activity == "import" and STATEMENTS.running_elsewhere(conn, **binds) >= max_imports:
                raise TooManyImports(f"{max_imports} imports are running; job {job.id} waits for one to end")
            STATEMENTS.end_other_workers(conn, job=job.id)
            attempt = STATEMENTS.claim(
                conn,
                job=job.id,
                activity=self.activity,
                run_id=run_id,
                seen_attempt=job.attempt,
                seen_status=job.status,
            )
            if attempt is None:
                raise JobBusy(f"Job {job.id} was changed by someone else just now", hint="Try again.")
            self.attempt = attempt
            conn.execute("select set_config('application_name', %s, false)", [f"{self._name()} claim"])

    def _beat(self) -> None:
        # A longer lease must not make heartbeats rarer: checks and other workers judge them by the usual lease.
        while not self._done.wait(min(self.lease, LEASE_SECONDS) / 6):
            with suppress(psycopg.Error):
                if not self._execute(STATEMENTS.beat):
                    return

    def _execute(self, statement: Callable[..., int], **values: object) -> int:
        """Run a statement about this attempt. The claim's connection is reopened if it was broken."""
        try:
            if self._conn.closed:
                self._conn = connect(self.url, f"{self._name()} claim", self.lease)
            return statement(self._conn, job=self.job, attempt=self.attempt, **values)
        except psycopg.Error:
            self._conn.close()
            raise

    def why_lost(self, conn: psycopg.Connection) -> ClaimLost | None:
        """Why this attempt may not write any more, or None if it still may."""
        job = load_job(conn, self.job)
        if job.attempt != self.attempt:
            return ClaimLost(
                f"attempt {job.attempt} took job {job.id} over from attempt {self.attempt}", "lost"
            )
        if self.activity == "import" and job.status != "running":
            return ClaimLost(f"job {job.id} is {job.status}", job.status)
        return None if job.activity else ClaimLost(f"job {job.id} is no longer held", "lost")

    def lost(self, conn: psycopg.Connection) -> ClaimLost:
        """Like `why_lost`, for callers whose conditional write has already failed."""
        return self.why_lost(conn) or ClaimLost(f"job {self.job} is no longer held", "lost")

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the job. A running import becomes `paused` after an interrupt, `failed` after anything else."""
        self._done.set()
        self._beating.join(timeout=5)
        interrupted = error is not None and not isinstance(error, Exception)
        ending = {"ending": "paused" if interrupted else "failed", "message": _message(error)}
        for _ in range(2):
            with suppress(psycopg.Error):  # if the server is unreachable, the lease expires instead
                self._execute(STATEMENTS.release, **ending)
                break
        self._conn.close()


def _message(error: BaseException | None) -> str:
    if error is None:
        return "The import ended before its file did."
    text = describe(error)[2] or type(error).__name__
    return redact(text if isinstance(error, UserError) else f"{type(error).__name__}: {text}").replace(
        "\0", ""
    )
