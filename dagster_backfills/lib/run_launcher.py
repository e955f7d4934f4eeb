"""Dagster's own run launcher, made to notice that a run's process is gone. Not here: launching and cancelling.

The stock launcher leaves that to the code server that started the process. When both are killed at once, by the end
of their machine say, nobody is left to tell, and the run would count as started for ever: its slots stay taken, and
a sensor that waits for it waits for ever.
"""

import json
import socket
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult

from dagster_backfills.lib.locked_file import LOCK_TAG, lock_holder

_ASK_SECONDS = 10
_OURS = ("multiprocessing", "dagster")  # in the command line of whatever works on a run


class WatchedRunLauncher(DefaultRunLauncher):
    """Launches like `DefaultRunLauncher`; run monitoring learns from it which started runs are still worked on."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING unless the process is known to be gone. What can't be found out now is asked again next time."""
        if LOCK_TAG in run.tags:
            return _of_lock(run.tags[LOCK_TAG])
        if GRPC_INFO_TAG not in run.tags:  # started by a `dagster` command, on whatever machine
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        where = json.loads(run.tags[GRPC_INFO_TAG])
        client = DagsterGrpcClient(
            host=where.get("host"),
            port=where.get("port"),
            socket=where.get("socket"),
            use_ssl=bool(where.get("use_ssl")),
        )
        try:
            request = CanCancelExecutionRequest(run_id=run.run_id)
            answer = dg.deserialize_value(
                client.can_cancel_execution(request, timeout=_ASK_SECONDS), CanCancelExecutionResult
            )
            if answer.can_cancel:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            answers = True
        except DagsterUserCodeUnreachableError:
            answers = False
        if _is_here(where):
            # A process outlives the code server that started it.
            process = self._recorded_process(run)
            if process is not None:
                return _of_process(process)
        if answers:
            return CheckRunHealthResult(
                WorkerStatus.NOT_FOUND, "its code server was restarted and does not know it"
            )
        return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server does not answer")

    def _recorded_process(self, run: dg.DagsterRun) -> int | None:
        """The id of the run's process, as it said itself."""
        for entry in self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            event = entry.dagster_event
            metadata = event.engine_event_data.metadata if event else {}
            if "pid" in metadata:
                return int(str(metadata["pid"].value))
        return None


def _of_lock(tag: str) -> CheckRunHealthResult:
    """Of a run that the command line launched: its process holds a lock while it lives."""
    host, _, lock = tag.partition(":")
    if host != socket.gethostname() or lock_holder(Path(lock)) is not None:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process was killed")


def _of_process(pid: int) -> CheckRunHealthResult:
    import psutil

    try:
        process = psutil.Process(pid)
        # Not by its age: a clock that was set since then says nothing. Another process that has the number now
        # would have to be one of Dagster's as well.
        ours = any(word in part for part in process.cmdline() for word in _OURS)
        if ours and process.status() != psutil.STATUS_ZOMBIE:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
    except psutil.NoSuchProcess:
        pass
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"its process {pid} is gone")


def _is_here(where: dict[str, object]) -> bool:
    """Whether the code server is on this machine."""
    names = ("localhost", "127.0.0.1", "::1", "0.0.0.0", socket.gethostname())
    return bool(where.get("socket")) or where.get("host") in names
