"""`backfills doctor`: checks everything that backfills depend on. Starts and changes nothing.

Here: the order of the checks, and the checks of declarations, Dagster's daemon, schedules and sensors.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer

from dagster_backfills.cli import doctor_machine, doctor_postgres
from dagster_backfills.cli.declarations import missing_triggers
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.finding import Finding, Level, findings_of
from dagster_backfills.cli.instance import NOT_YET, InstanceState, Tick, read_instance
from dagster_backfills.cli.output import Json, duration, print_json, print_table, say
from dagster_backfills.components.loading import declared, declared_folders
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.domain_switches import disabled_domains
from dagster_backfills.errors import UserError
from dagster_backfills.names import counted


def doctor(json: Json = False) -> None:
    """Check this machine, Postgres, Dagster, NATS and the inbox, and suggest fixes. Exits with 1 on an error."""
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
        summary = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}."
        say(summary if errors or warnings else "No problems found.")
    if errors:
        raise typer.Exit(FAILURES)


def examine() -> list[Finding]:
    """Run every check, dependencies first."""
    off = disabled_domains()
    machine = [finding for check in doctor_machine.CHECKS for finding in findings_of(check)]
    url, database = doctor_postgres.database_url()
    if url:
        database += doctor_postgres.examine(url)
    if any(each.check == "postgres" and each.level is Level.ERROR for each in database):
        dagster = [Finding.warning("dagster", "Not checked: its tables are in the database.")]
    else:
        dagster = [*findings_of(declarations), *findings_of(lambda: of_dagster(url), "dagster")]
    checks = [check for domain, check in doctor_machine.SERVICES if domain not in off]
    services = [finding for check in checks for finding in findings_of(check)]
    return [*machine, *database, *dagster, *services]


def declarations() -> Iterator[Finding]:
    """Each declaration that has a mistake or lacks its triggers, as `backfills check` reports it."""
    folders = declared_folders(project_defs(Path.cwd()))
    valid = 0
    for folder in folders:
        try:
            missing = missing_triggers(folder)
        except UserError as error:
            yield Finding.error("declarations", f"{folder.name}: {error.message}", error.hint)
            continue
        valid += not missing
        if missing:
            message = f"{folder.name}: triggers are missing on {', '.join(missing)}."
            advice = f"Create them: backfills triggers {declared(folder).name} --apply"
            yield Finding.warning("declarations", message, advice)
    if valid == len(folders):
        names = ", ".join(folder.name for folder in folders)
        yield Finding.ok("declarations", f"Valid: {names}." if folders else "There are none.")


def of_dagster(url: str) -> Iterator[Finding]:
    """Dagster's storage, daemon, schedules and sensors."""
    state = read_instance(url)
    if state.problem:
        level = Finding.warning if state.problem == NOT_YET else Finding.error
        yield level("daemon", state.problem, "Start it: backfills up. Or check DAGSTER_POSTGRES_URL.")
        return
    yield daemon(state)
    yield from ticks(state.ticks)


def daemon(state: InstanceState) -> Finding:
    """A daemon that stopped is an error. One that never ran is a warning: a project may not need it."""
    if state.daemon_seconds is None:
        return Finding.warning("daemon", "It has never run: nothing ticks.", "Start it: backfills up")
    if not state.daemon_works and state.daemon_seconds < 0:
        return Finding.error(
            "daemon",
            f"The clock was set back by {duration(-state.daemon_seconds)} since its last heartbeat.",
            "Restart dagster-daemon: it waits until the clock has caught up.",
        )
    heartbeat = f"Its last heartbeat was {duration(max(state.daemon_seconds, 0))} ago"
    if not state.daemon_works:
        return Finding.error(
            "daemon", f"{heartbeat}: nothing ticks, no queued run starts.", "Start it: backfills up"
        )
    queue = f"{counted(state.runs_started, 'run')} in progress, {state.runs_queued:,} queued"
    return Finding.ok("daemon", f"{heartbeat}; {queue}.")


def ticks(latest: list[Tick]) -> Iterator[Finding]:
    """Schedules and sensors that fail or are turned off, by name."""
    failing = [tick for tick in latest if tick.result == "failure"]
    for tick in failing:
        message = f"The last tick of {tick.name} failed: {tick.message}"
        yield Finding.warning("ticks", message, f"See the {tick.kind}'s ticks in the Dagster UI.")
    off = [tick.name for tick in latest if not tick.on]
    if off:
        yield Finding.warning(
            "ticks", f"Turned off: {', '.join(off)}.", "Turn them on in the UI unless this is intended."
        )
    if not failing and not off:
        yield Finding.ok("ticks", f"All {len(latest)} schedules and sensors are on.")
