"""`backfills doctor`: whether everything that the backfills need is there and well. Starts and changes nothing.

Here: the order of the checks, and the look at Dagster: declarations, storage, heartbeat, schedules and sensors.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from dagster_backfills.cli import doctor_machine, doctor_postgres
from dagster_backfills.cli.declarations import look
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.finding import Finding, Level, found_by
from dagster_backfills.cli.instance import NOT_YET, InstanceState, Tick, read_instance
from dagster_backfills.cli.output import Json, duration, print_json, print_table, say
from dagster_backfills.components.loading import declared_folders
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.domain_switches import switched_off
from dagster_backfills.errors import UserError
from dagster_backfills.names import counted


def doctor(json: Json = False) -> None:
    """Check this machine, Postgres, Dagster, NATS and the inbox; say what to do. Exit code 1 if there is an error."""
    findings = examine()
    errors = sum(each.level is Level.ERROR for each in findings)
    warnings = sum(each.level is Level.WARNING for each in findings)
    if json:
        print_json({"ok": not errors, "findings": [asdict(each) for each in findings]})
    else:
        print_table(
            ["state", "check", "found", "what to do"],
            [(each.level.value, each.check, each.found, each.advice) for each in findings],
            fold=True,
        )
        said = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}."
        say(said if errors or warnings else "All is well.")
    if errors:
        raise typer.Exit(FAILURES)


def examine() -> list[Finding]:
    """Every check in the order of what depends on what."""
    off = switched_off()
    machine = [found for check in doctor_machine.CHECKS for found in found_by(check)]
    url, database = doctor_postgres.database_url()
    if url:
        database += doctor_postgres.examine(url)
    if any(each.check == "postgres" and each.level is Level.ERROR for each in database):
        dagster = [Finding.warning("dagster", "Not looked at: its tables are in the database.")]
    else:
        dagster = [*found_by(declarations), *found_by(lambda: of_dagster(url), "dagster")]
    around = [
        found for domain, check in doctor_machine.NEIGHBOURS if domain not in off for found in found_by(check)
    ]
    return [*machine, *database, *dagster, *around]


def declarations() -> Iterator[Finding]:
    """Each declaration of the project that has a mistake or lacks its triggers: what `backfills check` says of it."""
    folders = declared_folders(project_defs(Path.cwd()))
    right = 0
    for folder in folders:
        try:
            lacking = look(folder)
        except UserError as error:
            yield Finding.error("declarations", f"{folder.name}: {error.message}", error.hint)
            continue
        right += not lacking
        if lacking:
            said, _, command = lacking.rpartition(": ")
            yield Finding.warning("declarations", f"{folder.name}: {said}.", f"Make them: {command} --apply")
    if right == len(folders):
        said = f"Right: {', '.join(folder.name for folder in folders)}." if folders else "There are none."
        yield Finding.ok("declarations", said)


def of_dagster(url: str) -> Iterator[Finding]:
    """Its storage, its daemon, its schedules and sensors."""
    state = read_instance(url)
    if state.problem:
        level = Finding.warning if state.problem == NOT_YET else Finding.error
        yield level("daemon", state.problem, "Start it: backfills up. Or check DAGSTER_POSTGRES_URL.")
        return
    yield daemon(state)
    yield from ticks(state.ticks)


def daemon(state: InstanceState) -> Finding:
    """Silent after it has been heard is an error; a project that never had one may do without."""
    if state.daemon_seconds is None:
        return Finding.warning("daemon", "It was never heard of: nothing ticks.", "Start it: backfills up")
    if not state.daemon_works and state.daemon_seconds < 0:
        return Finding.error(
            "daemon",
            f"The clock was set back by {duration(-state.daemon_seconds)} since it was last heard of.",
            "Restart dagster-daemon: it rests until the clock has caught up.",
        )
    heard = f"It was last heard of {duration(max(state.daemon_seconds, 0))} ago"
    if not state.daemon_works:
        return Finding.error(
            "daemon", f"{heard}: nothing ticks, nothing queued starts.", "Start it: backfills up"
        )
    queue = f"{counted(state.runs_started, 'run')} at work, {state.runs_queued:,} queued"
    return Finding.ok("daemon", f"{heard}; {queue}.")


def ticks(found: list[Tick]) -> Iterator[Finding]:
    """Those that fail or are turned off, by name."""
    failing = [tick for tick in found if tick.result == "failure"]
    for tick in failing:
        said = f"The last tick of {tick.name} failed: {tick.said}"
        yield Finding.warning("ticks", said, f"See the {tick.kind}'s ticks in the UI.")
    off = [tick.name for tick in found if not tick.on]
    if off:
        yield Finding.warning(
            "ticks", f"Turned off: {', '.join(off)}.", "Turn them on in the UI, if that is meant."
        )
    if not failing and not off:
        yield Finding.ok("ticks", f"All {len(found)} schedules and sensors are on.")
