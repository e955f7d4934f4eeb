"""`backfills webserver`: Dagster's UI, which knows who asks."""

import os
import sys

import typer

from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.roles import ROLES_VARIABLE, read_roles

app = typer.Typer()
_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_ANYTHING)
def webserver(context: typer.Context) -> None:
    """Start Dagster's UI, with the options of dagster-webserver, for those who may use it.

    Who asks is what the proxy says (BACKFILLS_PROXY_SECRET); without a proxy, this machine's user and nobody else.
    What each may do stands in the file that BACKFILLS_ROLES names; without one, everything.
    """
    read_roles(os.environ.get(ROLES_VARIABLE, ""))
    os.environ.update(dagster_environment())
    os.execv(sys.executable, [sys.executable, "-m", "dagster_backfills.instance.door", *context.args])
