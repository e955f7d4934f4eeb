"""`backfills serve`: the doors over HTTP, for programs and for people without a shell, until it is told to stop."""

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

_PATIENCE = 10  # seconds that requests have to end
_KEEP_ALIVE = 75


def serve(
    host: Annotated[
        str,
        typer.Option(help="Address. Whoever comes from this machine itself is let in, others need a token."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 3001,
) -> None:
    """Serve the API and its pages until Ctrl-C. Runs are started by the daemon: `backfills up`, or your own."""
    settings = Settings.from_environment()
    if host not in LOCAL_NAMES and not settings.proxy_secret and not settings.tokens:
        raise UserError(
            f"Nobody could be let in at {host}: there is no token, and no proxy.",
            "Set BACKFILLS_TOKENS or BACKFILLS_PROXY_SECRET, or serve 127.0.0.1.",
        )
    require_free(host, port)
    require_migrations(resolve_database_url())
    # A form's file is no small thing: `/tmp` may be memory.
    settings.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    tempfile.tempdir = str(settings.spool)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("dagster_backfills.web").setLevel(logging.INFO)
    say(f"The doors are at http://{host}:{port}. Ctrl-C closes them.")
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        # Who asks is told by the connection, or proven by the proxy's secret: not by what a header claims.
        proxy_headers=False,
        server_header=False,
        # Longer than clients keep a connection: one that is closed here while it is used there is an error there.
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_PATIENCE,
    )
