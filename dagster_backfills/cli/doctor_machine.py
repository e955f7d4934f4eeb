"""Checks of this machine and of the services around it: Python, folders, NATS, the inbox, notifications."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

from dagster_backfills.cli.finding import Check, Finding
from dagster_backfills.domain_switches import VARIABLE, enabled_domains, missing_libraries
from dagster_backfills.state import project_file, state_dir

_OLDEST, _NEWEST = (3, 11), (3, 13)
_GIB = 1024**3
_NATS_SECONDS = 5


def python() -> Iterator[Finding]:
    found = f"Python {sys.version.split()[0]}"
    if _OLDEST <= sys.version_info[:2] <= _NEWEST:
        yield Finding.ok("python", found)
    else:
        yield Finding.error("python", f"{found} is not supported.", "Use Python 3.11, 3.12 or 3.13.")


def dagster_version() -> Iterator[Finding]:
    pins = [each for each in requires("dagster-backfills") or [] if each.startswith("dagster==")]
    found, wanted = version("dagster"), pins[0].removeprefix("dagster==") if pins else ""
    if not wanted or found == wanted:
        yield Finding.ok("dagster version", found)
    else:
        advice = "Install from the lock file: make install"
        yield Finding.warning("dagster version", f"{found}; this project is tested with {wanted}.", advice)


def state_folder() -> Iterator[Finding]:
    yield from folder("state folder", state_dir(), "BACKFILLS_HOME")


def dagster_home() -> Iterator[Finding]:
    given = os.environ.get("DAGSTER_HOME", "").strip()
    if not given:
        yield from folder("dagster home", state_dir() / "dagster_home", "BACKFILLS_HOME")
        return
    home = Path(given).expanduser()
    if not home.is_absolute():
        yield Finding.error(
            "dagster home", f"DAGSTER_HOME is {given!r}, which is not an absolute path.", "Make it absolute."
        )
    elif not home.is_dir():
        yield Finding.error("dagster home", f"DAGSTER_HOME is {home}, which is not a folder.", "Create it.")
    elif not (home / "dagster.yaml").is_file():
        advice = f"Create a link: ln -s {project_file('dagster.yaml')} {home}"
        yield Finding.error(
            "dagster home", f"{home} has no dagster.yaml: Dagster would store its runs elsewhere.", advice
        )
    else:
        yield from folder("dagster home", home, "DAGSTER_HOME")


def folder(check: str, path: Path, variable: str) -> Iterator[Finding]:
    """Check that a folder (or its nearest existing parent) is writable and that its disk is not full."""
    existing = next(each for each in (path, *path.parents) if each.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding.error(check, f"{existing} is not writable.", f"Make it so, or set {variable}.")
        return
    yield disk(check, path, existing)


def disk(check: str, path: Path, existing: Path) -> Finding:
    """Check the free space of the disk of `existing`, and report it for `path`."""
    usage = shutil.disk_usage(existing)
    share = usage.free / usage.total
    found = f"{path}: {usage.free / _GIB:,.1f} GiB free, {share:.0%}"
    if usage.free < _GIB / 4:
        return Finding.error(check, found, "Free some space now: writes are about to fail.")
    if usage.free < 2 * _GIB or share < 0.05:
        return Finding.warning(check, found, "Free some space, or use a larger disk.")
    return Finding.ok(check, found)


def domains() -> Iterator[Finding]:
    on = enabled_domains()
    lacks = [missing_libraries(domain) for domain in on if missing_libraries(domain)]
    for message in lacks:
        yield Finding.error("domains", message, f"Install it, or remove the domain from {VARIABLE}.")
    if not lacks:
        yield Finding.ok("domains", f"Switched on: {', '.join(on) or 'none'}.")


def nats() -> Iterator[Finding]:
    from dagster_backfills.defs.kintell.resources import KintellSettings

    settings = KintellSettings()
    if not settings.nats:
        yield Finding.ok("nats", "KINTELL_NATS_URL is not set: events stay in the outbox.")
        return
    import asyncio

    advice = "Start NATS with JetStream, or check KINTELL_NATS_URL. Until then events stay in the outbox."
    try:
        found = asyncio.run(asyncio.wait_for(_ask_nats(settings.nats), _NATS_SECONDS))
    except Exception as error:  # nats-py passes on any error of the socket, TLS or the protocol
        why = " ".join(str(error).split()) or "no answer in time"
        yield Finding.error("nats", f"{settings.nats} is not usable: {why}", advice)
    else:
        yield Finding.ok("nats", f"{settings.nats}: {found}")


async def _ask_nats(url: str) -> str:
    from dagster_backfills.domains.kintell.events.outbox import connect_to_nats

    connection = await connect_to_nats(url)
    try:
        account = await connection.jetstream().account_info()
        return f"JetStream with {account.streams} streams"
    finally:
        await connection.close()


def inbox() -> Iterator[Finding]:
    from dagster_backfills.defs.kintell.resources import KintellSettings
    from dagster_backfills.domains.kintell.file.inbox import list_inbox

    url = KintellSettings().inbox_url
    if not url:
        yield Finding.ok("inbox", "KINTELL_INBOX is not set: imports are started manually.")
        return
    found = list_inbox(url)
    for problem in found.problems:
        yield Finding.warning("inbox", f"Not imported: {problem}", "Rename or remove the file.")
    if not found.problems:
        yield Finding.ok("inbox", f"{url}: {len(found.files):,} files")


def notifications() -> Iterator[Finding]:
    from dagster_backfills.defs.operations.channels import checked_channels

    names = checked_channels(os.environ)
    message = f"Failures are sent by {' and '.join(names)}." if names else "Failures are not sent to anyone."
    yield Finding.ok("notifications", message)


CHECKS: list[Check] = [python, dagster_version, state_folder, dagster_home, domains]
# Each with the domain that needs it.
SERVICES: list[tuple[str, Check]] = [("kintell", nats), ("kintell", inbox), ("operations", notifications)]
