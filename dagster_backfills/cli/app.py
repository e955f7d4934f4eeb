"""The table of `backfills` commands. A command's module is imported only when the command is called."""

import logging
import os
import signal
import sys
from importlib import metadata
from pkgutil import resolve_name
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

# Command name: its function or Typer group (module:name in this package) and its help text.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo:demo", "Load sample data, run every backfill, show the status before and after."),
    "up": ("up:up", "Start Postgres (if embedded), the Dagster UI and the Dagster daemon."),
    "serve": ("serve:serve", "Serve the HTTP API and the web pages."),
    "down": ("up:down", "Stop what `up` started, and the embedded Postgres server."),
    "migrate": ("migrate:migrate", "Apply pending database migrations."),
    "list": ("overview:list_", "List all backfills and their state."),
    "status": ("status:status", "Show the status of all backfills, or of each partition of one."),
    "doctor": ("doctor:doctor", "Check Python, Postgres, Dagster, NATS and the inbox; suggest fixes."),
    "plan": ("plan:plan", "Show what a run would change, without writing anything."),
    "run": ("run:run_", "Backfill the partitions that need it, or the ones you name."),
    "undo": ("undo:undo_", "Revert what a run changed. A dry run unless --yes is given."),
    "failures": ("failures:failures", "List what could not be written, and why."),
    "explain": (
        "explain:explain_",
        "Explain a unit's row: its state, its query, the runs that changed it.",
    ),
    "pause": ("controls:pause", "Pause a backfill: it writes nothing until it is resumed."),
    "resume": ("controls:resume", "Resume a paused backfill."),
    "throttle": ("controls:throttle", "Limit how fast a backfill writes, and during which hours."),
    "cancel": ("controls:cancel", "Cancel a backfill's runs. Committed batches stay."),
    "audit": ("audit:audit", "List who launched, undid, paused or changed what."),
    "webserver": ("programs:webserver_app", "Start the Dagster UI with authentication and roles."),
    "training": ("training:app", "Members' completion records: rollback."),
    "kintell": (
        "kintell.commands:app",
        "Session imports from CSV files: start, resume, errors, replay, rollback.",
    ),
    "queue": ("queue.commands:app", "Background jobs: enqueue, list, watch, cancel, retry."),
    "scoring": ("scoring.commands:app", "Members' daily scores: score a single gym."),
    "new": ("declarations:new", "Draft a backfill declaration from its target table."),
    "check": ("declarations:check", "Check the backfill declarations against the database."),
    "catalog": ("declarations:catalog", "Write table and column metadata for Dagster's catalog."),
    "triggers": (
        "declarations:triggers",
        "Print, apply or remove the triggers on source tables.",
    ),
    "exec": ("programs:exec_app", "Run a program with the secrets that ..._FILE variables point to."),
    "env": ("programs:env", 'Print environment variables for a shell: eval "$(backfills env)".'),
}

DEBUG_VARIABLE = "BACKFILLS_DEBUG"
COMPLETE_VARIABLE = "_BACKFILLS_COMPLETE"  # set by Typer's shell completion script


class _Lazy(TyperCommand):
    """A placeholder with a command's name and help. Imports the command when it is called."""

    def __init__(self, name: str, where: str, help: str) -> None:
        super().__init__(name, callback=None, help=help, short_help=help)
        self._where = where

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        command = typer.main.get_command(found_at(self._where))
        command.name, command.help = self.name, command.help or self.help
        return command.make_context(info_name, args, parent=parent, **extra)


def found_at(where: str) -> typer.Typer:
    """Import a command: a Typer group is returned as it is, a function becomes the only command of a new one."""
    target = resolve_name(f"dagster_backfills.cli.{where}")
    app = target if isinstance(target, typer.Typer) else typer.Typer()
    if app is not target:
        app.command()(target)
    app.rich_markup_mode, app._add_completion = None, False  # only the root command installs completion
    return app


class _Commands(TyperGroup):
    """The group of all commands in the table."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (where, help) in COMMANDS.items():
            self.add_command(_Lazy(name, where, help))


app = typer.Typer(cls=_Commands, no_args_is_help=True, rich_markup_mode=None)


def _version(requested: bool) -> None:
    if requested:
        typer.echo("backfills " + metadata.version("dagster-backfills"))
        raise typer.Exit


@app.callback(
    help="Backfills into Postgres, run by Dagster.",
    epilog="Exit codes: 0 done. 1 finished, but some units failed. 2 invalid request. "
    "3 server or environment not usable. 70 a bug. 130 interrupted.",
)
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def run() -> NoReturn:
    """Run the command line and exit with one of the codes in `cli.errors`."""
    from dagster_backfills.cli import errors
    from dagster_backfills.secret_files import read_secret_files

    treat_termination_as_interrupt()
    logging.getLogger().addHandler(errors.LogLines())
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


def treat_termination_as_interrupt() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that child processes are shut down cleanly."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.default_int_handler)
