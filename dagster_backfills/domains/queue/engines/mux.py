"""Bringing a film to Mux with its own client: a direct upload, the file, and waiting until it can be played."""

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import IO, Any

import urllib3

from dagster_backfills.domains.queue.errors import JobError, PermanentJobError, refused
from dagster_backfills.domains.queue.schemas import MuxOutput
from dagster_backfills.domains.queue.settings import EngineRules

Progress = Callable[[float, str], None]


def upload(file: IO[bytes], progress: Progress) -> MuxOutput:
    """Upload and wait until the asset is ready.

    MUX_TOKEN_ID and MUX_TOKEN_SECRET are needed; MUX_BASE_URL, JOBS_MUX_POLL_SECONDS and JOBS_MUX_WAIT_SECONDS may be
    set. Raises PermanentJobError without credentials or where Mux refuses, JobError where a retry may help.
    """
    import mux_python

    with _errors_told(mux_python), mux_python.ApiClient(_configuration(mux_python)) as client:
        uploads, assets = mux_python.DirectUploadsApi(client), mux_python.AssetsApi(client)
        wanted = mux_python.CreateAssetRequest(playback_policies=[mux_python.PlaybackPolicy.PUBLIC])
        request = mux_python.CreateUploadRequest(new_asset_settings=wanted, timeout=3600, cors_origin="*")
        made = uploads.create_direct_upload(request).data
        progress(30, "uploading")
        _send(file, made.url, progress)
        asset_id = _wait(
            lambda: _asset_of(uploads.get_direct_upload(made.id).data), progress, 75, "Mux takes it in"
        )
        asset = _wait(lambda: _ready(assets.get_asset(asset_id).data), progress, 85, "Mux prepares it")
    playbacks = asset.playback_ids or []
    return MuxOutput(
        asset_id=asset.id, playback_id=playbacks[0].id if playbacks else None, status=asset.status
    )


def check_credentials() -> None:
    """Raises PermanentJobError, naming the variables, before anything is fetched in vain."""
    missing = [name for name in ("MUX_TOKEN_ID", "MUX_TOKEN_SECRET") if not os.environ.get(name)]
    if missing:
        raise PermanentJobError(
            f"Mux's credentials are missing: set {' and '.join(missing)}.", kind="configuration"
        )


def _configuration(mux_python: Any) -> Any:
    check_credentials()
    configuration = mux_python.Configuration(host=os.environ.get("MUX_BASE_URL") or "https://api.mux.com")
    configuration.username = os.environ["MUX_TOKEN_ID"]
    configuration.password = os.environ["MUX_TOKEN_SECRET"]
    return configuration


def _send(file: IO[bytes], url: str, progress: Progress) -> None:
    """Stream the file to the upload's address, never held in memory as a whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)

    def parts() -> Any:
        done = 0
        while chunk := file.read(1024 * 1024):
            yield chunk
            done += len(chunk)
            progress(30 + 40 * done / max(size, 1), f"{done >> 20} of {size >> 20} MB")

    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    try:
        with urllib3.PoolManager(timeout=urllib3.Timeout(connect=30, read=300), retries=False) as pool:
            status = pool.request("PUT", url, body=parts(), headers=headers).status
    except urllib3.exceptions.HTTPError as error:
        raise JobError(f"The upload broke off: {error}", kind="network") from error
    if status not in (200, 201, 204, 308):
        raise JobError(f"The upload was answered with {status}.", kind="network")


def _asset_of(made: Any) -> str | None:
    if made.status in ("errored", "cancelled", "timed_out"):
        reason = getattr(made.error, "message", None) or "no reason given"
        raise JobError(f"Mux's upload is {made.status}: {reason}.", kind="mux")
    found: str | None = made.asset_id
    return found


def _ready(asset: Any) -> Any:
    if asset.status == "errored":
        reasons = "; ".join(getattr(asset.errors, "messages", None) or ["no reason given"])
        raise PermanentJobError(f"Mux can't use the film: {reasons}.", kind="mux")
    return asset if asset.status == "ready" else None


def _wait(ask: Callable[[], Any], progress: Progress, percentage: float, message: str) -> Any:
    rules = EngineRules.from_environment()
    deadline = time.monotonic() + rules.mux_wait_seconds
    while (found := ask()) is None:
        progress(percentage, message)
        if time.monotonic() > deadline:
            raise JobError("Mux was not ready within JOBS_MUX_WAIT_SECONDS.", kind="timeout")
        time.sleep(rules.mux_poll_seconds)
    return found


@contextmanager
def _errors_told(mux_python: Any) -> Any:
    try:
        yield
    except mux_python.ApiException as error:
        message = f"Mux answered {error.status}: {error.body or error.reason}"
        raise refused(error.status or 0, message, kind="mux") from error
    except urllib3.exceptions.HTTPError as error:
        raise JobError(f"Mux could not be reached: {error}", kind="network") from error
