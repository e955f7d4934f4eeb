"""The commands of `backfills` and where each is found. A module is loaded when its command is called, not before."""

import importlib
import os
import signal
import sys
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

# Each module has an `app: typer.Typer`: a group of commands, or a command where it has only one and no callback.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("dagster_backfills.cli.demo", "Sample data, every backfill, status before and after."),
    "up": ("dagster_backfills.cli.up", "Start everything: Postgres if need be, the Dagster UI, its daemon."),
    "serve": ("dagster_backfills.cli.serve", "HTTP for programs, and pages for people without a shell."),
    "down": ("dagster_backfills.cli.down", "Stop what `up` started, and the embedded Postgres."),
    "migrate": ("dagster_backfills.cli.migrate", "Bring the database up to date."),
    "list": ("dagster_backfills.cli.overview", "Every backfill, and how it stands."),
    "status": (
        "dagster_backfills.cli.status",
        "One page over all backfills, or how each partition of one stands.",
    ),
    "doctor": (
        "dagster_backfills.cli.doctor",
        "Check Python, Postgres, Dagster, NATS and the inbox; say what to do.",
    ),
    "plan": ("dagster_backfills.cli.plan", "What a run of a backfill would change, with nothing written."),
    "run": ("dagster_backfills.cli.run", "Write what a backfill needs, or the partitions that are named."),
    "undo": ("dagster_backfills.cli.undo", "Put back what a run changed; dry unless told otherwise."),
    "failures": ("dagster_backfills.cli.failures", "What could not be written, and why."),
    "explain": ("dagster_backfills.cli.explain", "Why a unit's row is as it is, and which runs made it so."),
    "pause": ("dagster_backfills.cli.pause", "Write nothing more of a backfill until it is resumed."),
    "resume": ("dagster_backfills.cli.resume", "Let a paused backfill go on."),
    "throttle": ("dagster_backfills.cli.throttle", "How fast a backfill may go, and at what hours."),
    "cancel": ("dagster_backfills.cli.cancel", "Stop the runs of a backfill; what they committed stays."),
    "audit": ("dagster_backfills.cli.audit", "Who launched, undid, paused or changed what."),
    "webserver": ("dagster_backfills.cli.webserver", "Dagster's UI, which knows who asks."),
    "training": (
        "dagster_backfills.cli.training",
        "Completion records of members: rollback.",
    ),
    "kintell": (
        "dagster_backfills.cli.kintell.commands",
        "Sessions from CSV files: start, resume, errors, replay, rollback.",
    ),
    "queue": (
        "dagster_backfills.cli.queue.commands",
        "The background queue: enqueue, list, watch, cancel, retry.",
    ),
    "scoring": ("dagster_backfills.cli.scoring.commands", "Members' daily scores: one gym alone."),
    "new": ("dagster_backfills.cli.new", "The first draft of a backfill, from the table that it is to fill."),
    "check": ("dagster_backfills.cli.check", "Look for mistakes in the declarations, in files and database."),
    "catalog": (
        "dagster_backfills.cli.catalog",
        "What the database says of the tables, for Dagster's catalog.",
    ),
    "triggers": (
        "dagster_backfills.cli.triggers",
        "Triggers that tell of changes in a backfill's sources: print, apply, remove.",
    ),
    "exec": ("dagster_backfills.cli.exec", "Another program, with the secrets that files hold."),
    "env": ("dagster_backfills.cli.env", 'Variables for a shell: eval "$(backfills env)".'),
}

DEBUG_VARIABLE = "BACKFILLS_DEBUG"
COMPLETE_VARIABLE = "_BACKFILLS_COMPLETE"  # set by what a shell has of Typer's


class _Lazy(TyperCommand):
    """Stands for a command until it is called: knows its name and its help, and loads the rest then."""

    def __init__(self, name: str, module: str, help: str) -> None:
        super().__init__(name, callback=None, help=help, short_help=help)
        self._module = module

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        app: typer.Typer = importlib.import_module(self._module).app
        app.rich_markup_mode = None
        command = typer.main.get_command(app)
        command.name, command.help = self.name, command.help or self.help
        # Completion is the whole program's.
        command.params = [
            p for p in command.params if p.name not in ("install_completion", "show_completion")
        ]
        return command.make_context(info_name, args, parent=parent, **extra)


class _Commands(TyperGroup):
    """The table above as a group of commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (module, help) in COMMANDS.items():
            self.add_command(_Lazy(name, module, help))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


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
        signal.signal(ending, _interrupt)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
