"""`backfills env`, `exec` and `webserver`: environment variables and secrets for other programs."""

import os
import shlex
import sys
from typing import Annotated

import typer

from dagster_backfills.cli.output import say
from dagster_backfills.errors import UserError
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.instance.roles import ROLES_VARIABLE, read_roles
from dagster_backfills.redact import redact

exec_app = typer.Typer()
webserver_app = typer.Typer()


def env() -> None:
    """Print environment variables for a shell: eval "$(backfills env)". Starts the embedded Postgres if needed.

    With them, `dagster`, `dg` and `psql "$DATABASE_URL"` use the same database and instance as `backfills`.
    """
    lines = [f"export {name}={shlex.quote(value)}" for name, value in dagster_environment().items()]
    if sys.stdout.isatty() and redact("\n".join(lines)) != "\n".join(lines):
        lines = [redact(line) for line in lines]
        say('Passwords are hidden on a terminal. Use: eval "$(backfills env)"')
    typer.echo("\n".join(lines))


@exec_app.command(context_settings={"allow_interspersed_args": False})
def exec_program(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments.", metavar="PROGRAM …")],
) -> None:
    """Replace this process with PROGRAM, after reading secrets from ..._FILE variables such as DATABASE_URL_FILE."""
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise UserError(f"{command[0]} can't be started: {error.strerror}.", "Check its name.") from error


@webserver_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def webserver(context: typer.Context) -> None:
    """Start the Dagster UI with authentication. Accepts the options of dagster-webserver.

    Users are authenticated by a proxy (BACKFILLS_PROXY_SECRET). Without one, only this machine's user is let in.
    The file that BACKFILLS_ROLES names says what each user may do. Without one, everyone may do everything.
    """
    read_roles(os.environ.get(ROLES_VARIABLE, ""))
    os.environ.update(dagster_environment())
    os.execv(sys.executable, [sys.executable, "-m", "dagster_backfills.instance.door", *context.args])
