"""Measures a declaration over an application's table: copying a million users, then finding that nothing has changed.

Uses `examples/kintell_users` through the engine, without Dagster: the first copy; one scan of the unchanged source,
as the refresh sensor does every half minute; and a complete run over it, as the schedule does every night. Prints a
table, then one JSON object.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from benchmarks.servers import as_writer
from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.loading import declared
from dagster_backfills.engine.model import WHOLE
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.table.address import Whole
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "kintell_users"
_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
_TABLE = """
create table public.users (
    id uuid primary key, email varchar(255) not null, role varchar(50) not null, first_name text, last_name text
);
grant select on public.users to backfills_writer;
"""
_ROWS = """
insert into public.users
select gen_random_uuid(), 'user' || n || '@example.org', case when n %% 3 = 0 then 'volunteer' else 'participant' end,
    'First' || n, 'Last' || n %% 1000
from generate_series(1, %s) as n
"""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench-adoption", description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="bench-adoption-"))
    root.chmod(0o755)
    (root / "state").mkdir()
    server = EmbeddedServer(root / "state", _SETTINGS)
    try:
        server.start()
        figures = _measure(server.url(), options.users)
    finally:
        server.delete()
        shutil.rmtree(root, ignore_errors=True)
    for name, value in figures.items():
        print(f"{name:32} {value:>12,.4g}")
    print(json.dumps(figures))


def _measure(url: str, users: int) -> dict[str, Any]:
    apply_migrations(url)
    writer, backfill = as_writer(url), declared(EXAMPLE)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_TABLE)
        conn.execute(_ROWS, [users])
        conn.execute("vacuum analyze public.users")
        _look(writer, backfill)  # the first scan marks everything
        copy, inserted = _run(writer, backfill)
        conn.execute("vacuum analyze kintell.users")
        looks = min(_seconds(lambda: _look(writer, backfill)) for _ in range(3))
        again, written = _run(writer, backfill)
        conn.execute(
            "update public.users set last_name = 'Other' where id in (select id from public.users limit 1000)"
        )
        changed, updated = _run(writer, backfill)
    assert (inserted, written, updated) == (users, 0, 1000), (inserted, written, updated)
    return {
        "users": users,
        "copy_seconds": copy,
        "look_seconds": looks,
        "merge_unchanged_seconds": again,
        "merge_1000_changed_seconds": changed,
        "ratio_unchanged_to_copy": looks / copy,
        "ratio_merge_unchanged_to_copy": again / copy,
    }


def _look(url: str, backfill: Backfill) -> None:
    with psycopg.connect(url) as conn:
        backfill.mark_changes(conn)


def _run(url: str, backfill: Backfill) -> tuple[float, int]:
    """Run the backfill. Returns the seconds, and the number of rows written."""

    @contextmanager
    def connect() -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(url) as conn:
            yield conn

    write = backfill.write(backfill.declared.tables[0], {"backfill_id": ""})
    runner = Runner(connect, RunIdentity(str(uuid4())))
    asset = write.target.asset
    seconds = _seconds(lambda: list(runner.run([write], {asset: Whole()}, [WHOLE])))
    assert not runner.outcome.failed, runner.outcome.failed
    total = runner.outcome.total(asset)
    return seconds, total.inserted + total.updated


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


if __name__ == "__main__":
    main(sys.argv[1:])
