"""The doctor's look at Dagster: the declarations, its storage, its daemon's heartbeat, its schedules and sensors."""

from collections.abc import Iterator
from pathlib import Path

from dagster_backfills.cli.check import look
from dagster_backfills.cli.finding import Finding
from dagster_backfills.cli.instance import NOT_YET, InstanceState, Tick, read_instance
from dagster_backfills.cli.output import duration
from dagster_backfills.components.loading import declared_folders
from dagster_backfills.dagster.project import project_defs
from dagster_backfills.errors import UserError


def examine(url: str) -> Iterator[Finding]:
    state = read_instance(url)
    if state.problem:
        level = Finding.warning if state.problem == NOT_YET else Finding.error
        yield level("daemon", state.problem, "Start it: backfills up. Or check DAGSTER_POSTGRES_URL.")
        return
    yield daemon(state)
    yield from ticks(state.ticks)


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
        yield Finding.ok(
            "declarations",
            f"Right: {', '.join(folder.name for folder in folders)}." if folders else "There are none.",
        )


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
    queue = f"{state.runs_started:,} runs at work, {state.runs_queued:,} queued"
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
