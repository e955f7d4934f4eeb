"""Running the embedded server's programs, to create its data and to start it. Not here: when to (`embedded`)."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres import placement

DATABASE = "backfills"
# Written to postgresql.conf when the data is created. Later changes by ALTER SYSTEM or by hand are kept.
# Statement errors are not logged: the client gets them, and they contain users' data.
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


class Launcher:
    """Runs the programs as the server's account. The caller must hold the server's lock."""

    def __init__(self, home: Path, account: placement.Account) -> None:
        self._home, self._account = home, account
        self._data, self._log = home / "data", home / "server.log"

    @cached_property
    def _programs(self) -> Path:
        version = self._data / "PG_VERSION"
        major = version.read_text().strip() if version.exists() else None
        return placement.prepare_programs(self._home, self._account, major)

    def create_data(self) -> None:
        """Create the data directory under another name and rename it when complete, so that no partial one is used."""
        if self._data.exists():
            return
        unfinished = self._data.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        options = [part for item in _SETTINGS.items() for part in ("--set", "{}={}".format(*item))]
        self._run(
            *("initdb", "-D", unfinished, "-U", "postgres", "--auth-local=trust", "--auth-host=reject"),
            # Collation by code point and Unicode case mapping, the same on every machine.
            *("-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", *options),
        )
        create = f"create database {DATABASE}\n"
        self._run("postgres", "--single", "-D", unfinished, "postgres", stdin=create)
        unfinished.rename(self._data)

    def start(self, settings: Mapping[str, str], seconds: int) -> None:
        """Start the server and wait until it accepts connections; `settings` override its configuration."""
        folder = placement.prepare_socket_dir(self._home, self._account)
        overrides = "".join(f" -c {name}={value}" for name, value in settings.items())
        # pg_ctl puts both paths between double quotes in a shell command; it leaves out a PGDATA.
        log = re.sub(r'["$`\\]', r"\\\g<0>", str(self._log))
        self._run(
            *("pg_ctl", "start", "--wait", "--timeout", seconds, "-l", log),
            *("-o", f"-p {placement.PORT} -k {folder}{overrides}"),
        )

    def _run(self, program: str, *arguments: object, stdin: str = "") -> None:
        # PGPORT, PGDATA and similar variables are meant for the user's own servers.
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=env | {"LC_ALL": "C", "PGDATA": str(self._data)},
            check=False,
            **self._account.subprocess_options,
        )
        if done.returncode:
            log = self._log.read_text(errors="replace") if self._log.exists() else ""
            output = [*log.splitlines()[-5:], *done.stderr.splitlines()[-5:]]
            raise NotUsableError(
                f"{program} of the embedded Postgres in {self._home} failed: {' | '.join(output)}",
                f"See its log, {self._log}, or set DATABASE_URL to a server of your own.",
            )
