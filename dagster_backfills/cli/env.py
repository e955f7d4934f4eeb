"""`backfills env`: the variables with which `dagster`, `dg` and `psql` work on this project's instance."""

import shlex
import sys

import typer

from dagster_backfills.cli.output import say
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.redact import redact

app = typer.Typer()


@app.command()
def env() -> None:
    """Print variables for a shell: eval "$(backfills env)". Starts the embedded Postgres if need be.

    Then `dagster`, `dg` and `psql "$DATABASE_URL"` work by hand on what `backfills` works on.
    """
    lines = [f"export {name}={shlex.quote(value)}" for name, value in dagster_environment().items()]
    if sys.stdout.isatty() and redact("\n".join(lines)) != "\n".join(lines):
        lines = [redact(line) for line in lines]
        say('Passwords are hidden on a terminal. Use: eval "$(backfills env)"')
    typer.echo("\n".join(lines))
