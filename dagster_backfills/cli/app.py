"""The commands of `backfills` and where each is found. A module is loaded when its command is called, not before."""

import os
import signal
import sys
from importlib import metadata
from pkgutil import resolve_name
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

# Where each is found below this package, a function or a group of them, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo:demo", "Sample data, every backfill, status before and after."),
    "up": ("up:up", "Start everything: Postgres if need be, the Dagster UI, its daemon."),
    "serve": ("serve:serve", "HTTP for programs, and pages for people without a shell."),
    "down": ("up:down", "Stop what `up` started, and the embedded Postgres."),
    "migrate": ("migrate:migrate", "Bring the database up to date."),
    "list": ("overview:list_", "Every backfill, and how it stands."),
    "status": ("status:status", "One page over all backfills, or how each partition of one stands."),
    "doctor": ("doctor:doctor", "Check Python, Postgres, Dagster, NATS and the inbox; say what to do."),
    "plan": ("plan:plan", "What a run of a backfill would change, with nothing written."),
    "run": ("run:run_", "Write what a backfill needs, or the partitions that are named."),
    "undo": ("undo:undo_", "Put back what a run changed; dry unless told otherwise."),
    "failures": ("failures:failures", "What could not be written, and why."),
    "explain": ("explain:explain_", "Why a unit's row is as it is, and which runs made it so."),
    "pause": ("controls:pause", "Write nothing more of a backfill until it is resumed."),
    "resume": ("controls:resume", "Let a paused backfill go on."),
    "throttle": ("controls:throttle", "How fast a backfill may go, and at what hours."),
    "cancel": ("controls:cancel", "Stop the runs of a backfill; what they committed stays."),
    "audit": ("audit:audit", "Who launched, undid, paused or changed what."),
    "webserver": ("programs:webserver_app", "Dagster's UI, which knows who asks."),
    "training": ("training:app", "Completion records of members: rollback."),
    "kintell": ("kintell.commands:app", "Sessions from CSV files: start, resume, errors, replay, rollback."),
    "queue": ("queue.commands:app", "The background queue: enqueue, list, watch, cancel, retry."),
    "scoring": ("scoring.commands:app", "Members' daily scores: one gym alone."),
    "new": ("declarations:new", "The first draft of a backfill, from the table that it is to fill."),
    "check": ("declarations:check", "Look for mistakes in the declarations, in files and database."),
    "catalog": ("declarations:catalog", "What the database says of the tables, for Dagster's catalog."),
    "triggers": (
        "declarations:triggers",
        "Triggers that tell of changes in a backfill's sources: print, apply, remove.",
    ),
    "exec": ("programs:exec_app", "Another program, with the secrets that files hold."),
    "env": ("programs:env", 'Variables for a shell: eval "$(backfills env)".'),
}

DEBUG_VARIABLE = "BACKFILLS_DEBUG"
COMPLETE_VARIABLE = "_BACKFILLS_COMPLETE"  # set by what a shell has of Typer's


class _Lazy(TyperCommand):
    """Stands for a command until it is called: knows its name and its help, and loads the rest then."""

    def __init__(self, name: str, where: str, help: str) -> None:
        super().__init__(name, callback=None, help=help, short_help=help)
        self._where = where

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        command = typer.main.get_command(found_at(self._where))
        command.name, command.help = self.name, command.help or self.help
        return command.make_context(info_name, args, parent=parent, **extra)


def found_at(where: str) -> typer.Typer:
    """What a command's place in the table names: a group as it is, a function as its only command."""
    found = resolve_name(f"dagster_backfills.cli.{where}")
    app = found if isinstance(found, typer.Typer) else typer.Typer()
    if app is not found:
        app.command()(found)
    app.rich_markup_mode, app._add_completion = None, False  # completion is the whole program's
    return app


class _Commands(TyperGroup):
    """The table above as a group of commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (where, help) in COMMANDS.items():
            self.add_command(_Lazy(name, where, help))


app = typer.Typer(cls=_Commands, no_args_is_help=True, rich_markup_mode=None)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo("backfills " + metadata.version("dagster-backfills"))
        raise typer.Exit


@app.callback(
    help="Backfills into Postgres, run by Dagster.",
    epilog="Ends with 0: done. 1: finished, but some units failed. 2: the request was wrong. "
    "3: server or environment is not usable. 70: a bug. 130: interrupted.",
)
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and end.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def run() -> NoReturn:
    """Run the command line and exit with one of the codes of `cli.errors`."""
    from dagster_backfills.cli import errors
    from dagster_backfills.secret_files import read_secret_files

    treat_endings_as_interrupts()
    try:
        read_secret_files(os.environ)
        command = typer.main.get_command(app)
        if COMPLETE_VARIABLE in os.environ:
            command(prog_name="backfills")
        with command.make_context("backfills", sys.argv[1:]) as context:
            command.invoke(context)
        sys.stdout.flush()
        code = errors.OK
    except BaseException as error:
        code = errors.report(error, debug=os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"))
    sys.exit(code)


def treat_endings_as_interrupts() -> None:
    """Make SIGTERM and SIGHUP what Ctrl-C is, so that whatever was started is ended in good order."""
    for ending in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(ending, signal.default_int_handler)
