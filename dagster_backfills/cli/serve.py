"""`backfills serve`: the HTTP API and the web pages, until it is stopped."""

import logging
import tempfile
from typing import Annotated

import typer
import uvicorn

from dagster_backfills.cli.output import say
from dagster_backfills.cli.up import require_free
from dagster_backfills.errors import UserError
from dagster_backfills.identity import LOCAL_NAMES
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.migrations import require_migrations
from dagster_backfills.web.app import create_app
from dagster_backfills.web.settings import Settings

_SHUTDOWN_SECONDS = 10  # for requests in progress
_KEEP_ALIVE = 75


def serve(
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Requests from other machines need a token or the proxy."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 3001,
) -> None:
    """Serve the HTTP API and the web pages until Ctrl-C. Runs need a Dagster daemon: `backfills up`, or your own."""
    settings = Settings.from_environment()
    if host not in LOCAL_NAMES and not settings.proxy_secret and not settings.tokens:
        raise UserError(
            f"No one could authenticate at {host}: neither tokens nor a proxy are configured.",
            "Set BACKFILLS_TOKENS or BACKFILLS_PROXY_SECRET, or use --host 127.0.0.1.",
        )
    require_free(host, port)
    require_migrations(resolve_database_url())
    # Files in forms are large, and `/tmp` may be in memory.
    settings.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    tempfile.tempdir = str(settings.spool)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, force=True)
    logging.getLogger("dagster_backfills.web").setLevel(logging.INFO)
    say(f"Serving at http://{host}:{port}. Press Ctrl-C to stop.")
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        # The client is identified by the connection or the proxy's secret, never by a forwarded header.
        proxy_headers=False,
        server_header=False,
        # Longer than clients keep connections, so that the server does not close one that a client is about to use.
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
