"""The state of the Dagster instance: daemon, run queue, schedules and sensors. Only reads."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import dagster as dg

from dagster_backfills.cli.errors import explain
from dagster_backfills.dagster.cause import reason_of
from dagster_backfills.dagster.private import next_tick
from dagster_backfills.errors import NotUsableError
from dagster_backfills.instance.dagster_home import stores_in_postgres_here
from dagster_backfills.instance.launching import (
    CODE_LOCATION,
    DAEMON_SILENT_SECONDS,
    daemon_heard,
    open_instance,
)
from dagster_backfills.instance.storage.sessions import require_connection
from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.url import checked_url
from dagster_backfills.redact import redact

NOT_YET = "Dagster has not run on this database yet."


@dataclass(frozen=True)
class Tick:
    """A schedule or sensor: whether it is on, its last and next tick, and the last tick's result."""

    name: str
    kind: str
    on: bool
    every: str
    last: datetime | None
    next: datetime | None
    result: str
    message: str


@dataclass(frozen=True)
class InstanceState:
    """A snapshot of the instance. If it could not be read, `problem` says why; otherwise it is empty."""

    problem: str = ""
    daemon_heartbeat: datetime | None = None
    daemon_seconds: float | None = None
    runs_queued: int = 0
    runs_started: int = 0
    ticks: list[Tick] = field(default_factory=list)

    @property
    def daemon_works(self) -> bool:
        return self.daemon_seconds is not None and abs(self.daemon_seconds) < DAEMON_SILENT_SECONDS


def read_instance(url: str, ticks: bool = True) -> InstanceState:
    """Read the state of the instance stored in `url`. Creates no tables and never raises; errors go to `problem`."""
    try:
        require_instance(url)
        with open_instance() as instance:
            now = datetime.now(UTC)
            heard = daemon_heard(instance)
            return InstanceState(
                daemon_heartbeat=heard,
                daemon_seconds=(now - heard).total_seconds() if heard else None,
                runs_queued=_count(instance, dg.DagsterRunStatus.QUEUED),
                runs_started=_count(instance, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED),
                ticks=read_ticks(instance, now) if ticks else [],
            )
    except Exception as error:  # if Dagster has a problem, the rest of the status page is still useful
        return InstanceState(problem=redact(explain(error)[1]))


def runs_of(run_ids: Iterable[str]) -> dict[str, dg.DagsterRun]:
    """Those of these runs that Dagster knows, by ID. A killed process can't record its own end; Dagster does."""
    with open_instance() as instance:
        return {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=list(run_ids)))}


def require_instance(url: str) -> None:
    """Raise an error if Dagster's storage does not answer, or has no tables yet.

    Opening the instance would create the tables, and would try five times for ten seconds to reach the storage.
    """
    if not stores_in_postgres_here():
        return
    own = os.environ.get("DAGSTER_POSTGRES_URL", "").strip()
    if own:  # as Dagster's storage connects
        require_connection(checked_url(own, "DAGSTER_POSTGRES_URL"))
        return
    with connect(url, autocommit=True, connect_timeout=5) as conn:
        if conn.execute("select to_regclass('dagster.runs')").fetchone() == (None,):
            raise NotUsableError(NOT_YET, "Start it: backfills up")


def read_ticks(instance: dg.DagsterInstance, now: datetime) -> list[Tick]:
    """All schedules and sensors of the code location, schedules first."""
    repository = _repository()
    states = _states(instance)
    kinds: dict[str, Any] = {"schedule": repository.schedule_defs, "sensor": repository.sensor_defs}
    ticks = [
        _tick(instance, kind, each, states.get(each.name), now)
        for kind, definitions in kinds.items()
        for each in definitions
    ]
    return sorted(ticks, key=lambda tick: (tick.kind, tick.next is None, tick.next or now, tick.name))


@cache
def _repository() -> dg.RepositoryDefinition:
    from dagster_backfills.definitions import defs

    with warnings.catch_warnings():  # Dagster's warnings about beta features
        warnings.simplefilter("ignore")
        return defs().get_repository_def()


def _states(instance: dg.DagsterInstance) -> dict[str, Any]:
    """The stored state of each schedule and sensor, by name."""
    return {
        state.instigator_name: state
        for state in instance.all_instigator_state()
        if state.origin.repository_origin.code_location_origin.location_name == CODE_LOCATION
    }


def _tick(instance: dg.DagsterInstance, kind: str, definition: Any, state: Any, now: datetime) -> Tick:
    on = state.is_running if state else definition.default_status.value == "RUNNING"
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1) if state else []
    last = datetime.fromtimestamp(ticks[0].timestamp, UTC) if ticks else None
    result = ticks[0].status.value.lower() if ticks else ""
    message = _message(ticks[0]) if ticks else ""
    following: datetime | None
    if kind == "schedule":
        cron = definition.cron_schedule
        every = cron if isinstance(cron, str) else "; ".join(cron)
        following = next_tick(cron, definition.execution_timezone, now)
    else:
        seconds = definition.minimum_interval_seconds or 30
        every = f"{seconds} s"
        following = max(datetime.fromtimestamp(last.timestamp() + seconds, UTC), now) if last else None
    return Tick(definition.name, kind, on, every, last, following if on else None, result, message)


def _message(tick: Any) -> str:
    if tick.error:
        return redact(" ".join(reason_of(tick.error).split()))
    return tick.skip_reason or ""


def _count(instance: dg.DagsterInstance, *statuses: dg.DagsterRunStatus) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=list(statuses)))
