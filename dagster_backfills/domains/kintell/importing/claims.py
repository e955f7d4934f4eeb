"""Who may write to an import job: one attempt at a time, fenced, found dead by its heartbeat.

A claim raises the job's attempt; every write is conditional on it. The worker's own connection holds an advisory
lock as long as it lives, so that a killed worker is known to be dead at once, a suspended one after its lease.
"""

import threading
import time
from types import TracebackType
from uuid import UUID

import psycopg

from dagster_backfills.domains.kintell.statements import statements
from dagster_backfills.engine.failures import describe
from dagster_backfills.errors import UserError
from dagster_backfills.postgres import connection
from dagster_backfills.redact import redact

LEASE_SECONDS = 60.0
MAX_IMPORTS = 4
PATIENCE_SECONDS = 2.0
CLAIMABLE = {
    "import": ("pending", "running", "paused", "failed"),
    "replay": ("completed", "failed", "paused", "cancelled"),
    "rollback": ("completed", "failed", "paused", "cancelled"),
}


class JobBusy(UserError):
    """Another worker holds the job and is alive."""


class TooManyImports(UserError):
    """As many imports as may run side by side are running."""


class ClaimLost(Exception):
    """Another attempt has the job now, or it was paused or cancelled: this worker may write nothing more."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


def check_claimable(job: UUID, activity: str, status: str, *, rolling_back: bool) -> None:
    """Raise `UserError` where a job is not in a state for this."""
    if rolling_back and activity != "rollback":
        raise UserError(f"Job {job} is being rolled back", hint="Its rollback can be resumed.")
    if status in CLAIMABLE[activity]:
        return
    if activity == "rollback" and status == "running":
        raise UserError(f"Job {job} is running", hint="Cancel it first.")
    verb = {"import": "resumed", "replay": "replayed", "rollback": "rolled back"}[activity]
    raise UserError(f"Job {job} is {status} and can't be {verb}")


def connect(url: str, name: str, lease: float = LEASE_SECONDS) -> psycopg.Connection:
    """A worker's connection. A cut one is noticed; one that sits in a transaction past the lease is ended."""
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
    """The right to write to `job`, from `attempt` on. A context: leaving it releases the job."""

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
            self._take_patiently(run_id, max_imports)
        except BaseException:
            self._conn.close()
            raise
        self._done = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="kintell-heartbeat", daemon=True)
        self._beating.start()

    def _name(self, attempt: object) -> str:
        return f"kintell {self.job} {attempt}"

    def connect(self) -> psycopg.Connection:
        """Another connection of this worker, ended with it when a later attempt takes the job over."""
        return connect(self.url, self._name(self.attempt), self.lease)

    def _take_patiently(self, run_id: str | None, max_imports: int) -> None:
        """The connection of a worker that was just killed may take a moment to end."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._take(run_id, max_imports)
            except JobBusy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _take(self, run_id: str | None, max_imports: int) -> None:
        sql, conn = statements(), self._conn
        with conn.transaction():
            sql.lock_claims(conn)
            state = sql.claim_state(conn, job=self.job, lease=self.lease)
            if state is None:
                raise UserError(
                    f"There is no import job {self.job}", hint="`backfills kintell status` lists the jobs."
                )
            status, held, attempt, holder, rolling_back, fresh, age = state
            check_claimable(self.job, self.activity, status, rolling_back=rolling_back)
            alone = sql.try_hold(conn, job=str(self.job))
            if not alone and held and fresh:
                raise JobBusy(
                    f"Job {self.job} is held by attempt {attempt} ({held}), heartbeat {age:.0f} s ago",
                    hint=f"It goes on in run {holder}." if holder else "",
                )
            if (
                self.activity == "import"
                and sql.running_elsewhere(conn, job=self.job, lease=self.lease) >= max_imports
            ):
                raise TooManyImports(
                    f"{max_imports} imports are running; job {self.job} waits for one to end"
                )
            sql.end_other_workers(conn, job=str(self.job))
            taken = sql.claim(
                conn,
                job=self.job,
                activity=self.activity,
                run_id=run_id,
                seen_attempt=attempt,
                seen_status=status,
            )
            if taken is None:
                raise JobBusy(f"Job {self.job} has changed in this moment", hint="Try again.")
            self.attempt = taken
        conn.execute("select set_config('application_name', %s, false)", [self._name(self.attempt)])
        self._hold(alone)

    def _hold(self, held: bool) -> None:
        for _ in range(100):
            if held or statements().try_hold(self._conn, job=str(self.job)):
                return
            time.sleep(0.05)

    def _beat(self) -> None:
        while not self._done.wait(self.lease / 6):
            try:
                if self._conn.closed:
                    self._conn = self.connect()
                    statements().try_hold(self._conn, job=str(self.job))
                if not statements().beat(self._conn, job=self.job, attempt=self.attempt):
                    return
            except psycopg.Error:
                self._conn.close()

    def why_lost(self, conn: psycopg.Connection) -> ClaimLost | None:
        """Why this attempt may not write any more; None where it still may."""
        with conn.cursor() as cursor:
            status, attempt, activity = cursor.execute(
                "select status, attempt, activity from kintell.backfill_jobs where id = %s", [self.job]
            ).fetchone() or ("gone", 0, None)
        if attempt != self.attempt:
            return ClaimLost(
                f"attempt {attempt} has taken job {self.job} over from attempt {self.attempt}", "lost"
            )
        if self.activity == "import" and status != "running":
            return ClaimLost(f"job {self.job} is {status}", status)
        return None if activity else ClaimLost(f"job {self.job} is no longer held", "lost")

    def lost(self, conn: psycopg.Connection) -> ClaimLost:
        """The same, where it is known that it may not."""
        return self.why_lost(conn) or ClaimLost(f"job {self.job} is no longer held", "lost")

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the job. An import that was under way is paused by an interrupt, and failed by anything else."""
        self._done.set()
        self._beating.join(timeout=5)
        interrupted = error is not None and not isinstance(error, Exception)
        ending = {"ending": "paused" if interrupted else "failed", "message": _message(error)}
        try:
            try:
                statements().release(self._conn, job=self.job, attempt=self.attempt, **ending)
            except psycopg.Error:
                self._conn.close()
                self._conn = self.connect()
                statements().release(self._conn, job=self.job, attempt=self.attempt, **ending)
        except psycopg.Error:
            pass  # the server is away: the lease ends it
        finally:
            self._conn.close()


def _message(error: BaseException | None) -> str:
    if error is None:
        return "The import ended before its file did."
    text = describe(error)[2] or type(error).__name__
    return redact(text if isinstance(error, UserError) else f"{type(error).__name__}: {text}").replace(
        "\0", ""
    )
