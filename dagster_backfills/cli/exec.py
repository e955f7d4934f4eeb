"""`backfills exec`: another program, with the secrets that files hold in its environment."""

import os
from typing import Annotated

import typer

from dagster_backfills.errors import UserError

app = typer.Typer()


@app.command(context_settings={"allow_interspersed_args": False})
def exec_program(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments.", metavar="PROGRAM …")],
) -> None:
    """Become PROGRAM, with every secret in its environment that a …_FILE variable names: DATABASE_URL_FILE, say."""
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise UserError(f"{command[0]} can't be started: {error.strerror}.", "Check its name.") from error
