"""Upload a video to Mux with its own client library, and wait until it can be played."""

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import IO, Any

import urllib3

from dagster_backfills.domains.queue.errors import JobError, PermanentJobError, http_error
from dagster_backfills.domains.queue.schemas import MuxOutput
from dagster_backfills.domains.queue.settings import EngineRules

Progress = Callable[[float, str], None]


def upload(file: IO[bytes], progress: Progress) -> MuxOutput:
    """Upload the file and wait until the asset is ready.

    Requires MUX_TOKEN_ID and MUX_TOKEN_SECRET; MUX_BASE_URL, JOBS_MUX_POLL_SECONDS and JOBS_MUX_WAIT_SECONDS are
    optional. Raises PermanentJobError without credentials or if Mux rejects the video, JobError if a retry may help.
    """
    import mux_python

    with _as_job_errors(mux_python), mux_python.ApiClient(_configuration(mux_python)) as client:
        uploads, assets = mux_python.DirectUploadsApi(client), mux_python.AssetsApi(client)
        settings = mux_python.CreateAssetRequest(playback_policies=[mux_python.PlaybackPolicy.PUBLIC])
        request = mux_python.CreateUploadRequest(new_asset_settings=settings, timeout=3600, cors_origin="*")
        upload = uploads.create_direct_upload(request).data
        progress(30, "uploading")
        _send(file, upload.url, progress)
        asset_id = _wait(
            lambda: _asset_id(uploads.get_direct_upload(upload.id).data),
            progress,
            75,
            "Mux is importing the file",
        )
        asset = _wait(
            lambda: _ready(assets.get_asset(asset_id).data), progress, 85, "Mux is preparing the video"
        )
    playbacks = asset.playback_ids or []
    return MuxOutput(
        asset_id=asset.id, playback_id=playbacks[0].id if playbacks else None, status=asset.status
    )


def check_credentials() -> None:
    """Raises PermanentJobError, naming the missing variables. Call it before downloading anything."""
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
    """Stream the file to the upload URL, without loading it into memory."""
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
        raise JobError(f"The upload was interrupted: {error}", kind="network") from error
    if status not in (200, 201, 204, 308):
        raise JobError(f"The upload failed with HTTP status {status}.", kind="network")


def _asset_id(upload: Any) -> str | None:
    if upload.status in ("errored", "cancelled", "timed_out"):
        reason = getattr(upload.error, "message", None) or "no reason given"
        raise JobError(f"Mux's upload is {upload.status}: {reason}.", kind="mux")
    asset_id: str | None = upload.asset_id
    return asset_id


def _ready(asset: Any) -> Any:
    if asset.status == "errored":
        reasons = "; ".join(getattr(asset.errors, "messages", None) or ["no reason given"])
        raise PermanentJobError(f"Mux can't process the video: {reasons}.", kind="mux")
    return asset if asset.status == "ready" else None


def _wait(ask: Callable[[], Any], progress: Progress, percentage: float, message: str) -> Any:
    rules = EngineRules.from_environment()
    deadline = time.monotonic() + rules.mux_wait_seconds
    while (answer := ask()) is None:
        progress(percentage, message)
        if time.monotonic() > deadline:
            raise JobError("Mux was not ready within JOBS_MUX_WAIT_SECONDS.", kind="timeout")
        time.sleep(rules.mux_poll_seconds)
    return answer


@contextmanager
def _as_job_errors(mux_python: Any) -> Any:
    try:
        yield
    except mux_python.ApiException as error:
        message = f"Mux returned status {error.status}: {error.body or error.reason}"
        raise http_error(error.status or 0, message, kind="mux") from error
    except urllib3.exceptions.HTTPError as error:
        raise JobError(f"Mux could not be reached: {error}", kind="network") from error
