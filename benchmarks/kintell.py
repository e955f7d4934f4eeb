"""Compares the session import with other ways to load the same file: `make bench-kintell`.

    python -m benchmarks.kintell [--rows 1000000] [--ways floor,sql,dlt,to_sql,import,resume] [--repeat 2]

The ways run one after the other on the same server, each into an empty table. All of them are repeated, and the best
time of each counts, because a machine has slow moments. The SQL statement and the import run like a deployment, with
the privileges of `backfills_writer`. The last line is one JSON object.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.kintell_data import add_users, write_file
from benchmarks.servers import as_writer

SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "work_mem": "256MB",
    "maintenance_work_mem": "512MB",
    "checkpoint_timeout": "15min",
}
WAYS = ("floor", "sql", "dlt", "to_sql", "import", "resume")
TO_SQL_ROWS = 100_000  # to_sql is so slow that only a part of the file is loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--repeat", type=int, default=2, help="Repetitions of each; the best one counts.")
    parser.add_argument("--batch-rows", type=int, default=20_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-kintell-"))
    folder.chmod(0o755)
    try:
        with_server(folder, lambda url: compare(url, folder, arguments))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def with_server(folder: Path, then: Callable[[str], None]) -> None:
    """Call `then` with the URL of an embedded server, or BENCH_DATABASE_URL, which must name an empty database."""
    url = os.environ.get("BENCH_DATABASE_URL")
    if url:
        then(url)
        return
    from dagster_backfills.postgres.embedded import EmbeddedServer

    server = EmbeddedServer(folder / "server", SETTINGS)
    server.start()
    try:
        then(server.url())
    finally:
        server.delete()


def compare(url: str, folder: Path, arguments: argparse.Namespace) -> None:
    from dagster_backfills.postgres.migrations import apply_migrations

    apply_migrations(url)
    path, rows = folder / "sessions.csv", arguments.rows
    bad = write_file(path, rows)
    with psycopg.connect(url, autocommit=True) as conn:
        add_users(conn)
        version = conn.info.server_version // 10000
    print(f"{rows:,} rows ({bad:,} bad), {path.stat().st_size / 1e6:.0f} MB, Postgres {version}")
    results: dict[str, dict[str, Any]] = {}
    writer = as_writer(url)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "floor": lambda: floor(writer, path),
        "sql": lambda: insert_select(writer, path),
        "dlt": lambda: dlt_append(url, path, folder),
        "to_sql": lambda: to_sql(writer, path),
        "import": lambda: this_import(writer, path, arguments.batch_rows),
        "resume": lambda: resume(writer, path, arguments.batch_rows),
    }
    for way in arguments.ways.split(",") * arguments.repeat:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("drop schema if exists bench cascade; create schema bench")
            conn.execute("grant usage, create on schema bench to backfills_writer")
            make_target(conn)
            conn.execute(
                "truncate kintell.backfill_jobs, kintell.kintell_sessions, kintell.event_outbox cascade"
            )
            conn.execute("checkpoint")
        result = {"rows": rows, **ways[way]()}
        show(way, result)
        results[way] = better(results.get(way, result), result)
    summary(results, rows)


def better(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The faster of two results, with the higher peak memory of both."""
    best = min(one, other, key=lambda result: result.get("seconds", 0.0))
    peaks = [result["peak_mb"] for result in (one, other) if "peak_mb" in result]
    return {**best, "peak_mb": max(peaks)} if peaks else best


def show(way: str, result: dict[str, Any]) -> None:
    if "skipped" in result:
        print(f"{way:8} skipped: {result['skipped']}")
        return
    memory = f"  peak {result['peak_mb']:.0f} MB above idle" if "peak_mb" in result else ""
    rate = "" if way == "resume" else f"{result['rows'] / result['seconds']:9,.0f} rows/s"
    print(
        f"{way:8} {result['seconds']:7.2f} s  {rate:16}{memory}  {result.get('note', '')}",
        flush=True,
    )


def summary(results: dict[str, dict[str, Any]], rows: int) -> None:
    out: dict[str, Any] = {"rows": rows}
    for way, result in results.items():
        if "seconds" in result and way != "resume":
            out[f"rows_per_second_{way}"] = round(result["rows"] / result["seconds"])
    ours = results.get("import", {})
    for way in ("floor", "sql", "dlt", "to_sql"):
        other = results.get(way, {})
        if "seconds" in other and "seconds" in ours:
            out[f"ratio_to_{way}"] = round(
                (ours["seconds"] / ours["rows"]) / (other["seconds"] / other["rows"]), 3
            )
    if "peak_mb" in ours:
        out["peak_mb"] = round(ours["peak_mb"])
    if "resume" in results:
        out["resume_seconds"] = round(results["resume"]["seconds"], 2)
    print(json.dumps(out))


def _statement(name: str) -> str:
    from dagster_backfills.postgres.statements import load_statements

    return load_statements(Path(__file__).with_name("kintell_sql.sql"))[name]


def floor(url: str, path: Path) -> dict[str, Any]:
    """psql's \\copy into a table of texts, unlogged and without constraints."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_statement("raw_table"))
    began = time.monotonic()
    _copy_raw(url, path)
    return {"seconds": time.monotonic() - began}


def _copy_raw(url: str, path: Path) -> None:
    header = path.open(encoding="utf-8").readline().count(",")
    # COPY fails on rows with a wrong number of columns, so remove them first.
    clean = path.with_suffix(".clean.csv")
    if not clean.exists():
        with (
            path.open(encoding="utf-8", newline="") as rows,
            clean.open("w", encoding="utf-8", newline="") as out,
        ):
            writer = csv.writer(out, lineterminator="\n")
            writer.writerows(row for row in csv.reader(rows) if len(row) == header + 1)
    psql = shutil.which("psql")
    if psql:
        command = f"\\copy bench.raw from '{clean}' (format csv, header)"
        subprocess.run([psql, url, "-q", "-v", "ON_ERROR_STOP=1", "-c", command], check=True)
        return
    into = "copy bench.raw from stdin (format csv, header)"
    with (
        psycopg.connect(url, autocommit=True) as conn,
        clean.open("rb") as data,
        conn.cursor().copy(into) as copy,
    ):
        while piece := data.read(1 << 20):
            copy.write(piece)


def make_target(conn: psycopg.Connection) -> None:
    """Create a copy of the sessions table, with its keys and indexes."""
    conn.execute("create table bench.sessions (like kintell.kintell_sessions including all)")
    for column in ("participant_id", "volunteer_id"):
        add_key = sql.SQL("alter table bench.sessions add foreign key ({}) references kintell.users")
        conn.execute(add_key.format(sql.Identifier(column)))
    conn.execute("grant select, insert on bench.sessions to backfills_writer")


def insert_select(url: str, path: Path) -> dict[str, Any]:
    """The floor, then one statement that validates, joins the users twice and inserts. Same keys and indexes."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_statement("raw_table"))
    began = time.monotonic()
    _copy_raw(url, path)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("analyze bench.raw")
        # The planner underestimates the rows that pass all checks, and would look users up one by one.
        conn.execute("set enable_nestloop = off")
        done = conn.execute(_statement("insert_select")).rowcount
    return {"seconds": time.monotonic() - began, "note": f"{done:,} sessions"}


def dlt_append(url: str, path: Path, folder: Path) -> dict[str, Any]:
    """dlt appends the same texts, without checks and keys."""
    try:
        import dlt
        import pyarrow.csv
    except ImportError:
        return {"skipped": "dlt is not installed (uv pip install --group bench)"}
    _copy_raw_clean(path)
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_TELEMETRY": "false"}

    @dlt.resource(name="sessions", write_disposition="append")
    def rows() -> Any:
        text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(_columns(path), "string"))
        options = pyarrow.csv.ParseOptions(newlines_in_values=True)
        reader = pyarrow.csv.open_csv(
            path.with_suffix(".clean.csv"), parse_options=options, convert_options=text
        )
        yield from reader

    destination = dlt.destinations.postgres(_tcp_url(url))
    pipeline = dlt.pipeline(
        "bench_kintell", destination=destination, dataset_name="bench_dlt", pipelines_dir=str(folder / "dlt")
    )
    began = time.monotonic()
    pipeline.run(rows(), loader_file_format="csv")
    seconds = time.monotonic() - began
    with psycopg.connect(url, autocommit=True) as conn:
        done = conn.execute("select count(*) from bench_dlt.sessions").fetchone()
        conn.execute("drop schema bench_dlt cascade")
    return {"seconds": seconds, "note": f"{done[0] if done else 0:,} texts"}


def _tcp_url(url: str) -> str:
    """The URL in the form that dlt can parse: it requires a host, so a socket folder goes into the query string."""
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(url)
    host = str(parts.get("host", "localhost"))
    login = f"{parts.get('user', 'postgres')}:{parts.get('password') or 'unused'}"
    place = host if not host.startswith("/") else "localhost"
    tail = f"?host={host}" if host.startswith("/") else ""
    return f"postgresql://{login}@{place}:{parts.get('port') or 5432}/{parts.get('dbname')}{tail}"


def _columns(path: Path) -> list[str]:
    return path.open(encoding="utf-8").readline().strip().split(",")


def _copy_raw_clean(path: Path) -> None:
    if not path.with_suffix(".clean.csv").exists():
        raise SystemExit("run the floor first: --ways floor,…")


def to_sql(url: str, path: Path) -> dict[str, Any]:
    """pandas' DataFrame.to_sql on the texts."""
    import pandas as pd
    from sqlalchemy import create_engine

    _copy_raw_clean(path)
    frame = pd.read_csv(path.with_suffix(".clean.csv"), dtype=str, nrows=TO_SQL_ROWS)
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    began = time.monotonic()
    frame.to_sql("to_sql", engine, schema="bench", index=False)
    return {"seconds": time.monotonic() - began, "rows": len(frame), "note": "a part, texts without keys"}


def this_import(url: str, path: Path, batch_rows: int) -> dict[str, Any]:
    """Register, preflight and import with everything on, in a separate worker process."""
    return _worker("import", url, str(path), str(batch_rows))


def resume(url: str, path: Path, batch_rows: int) -> dict[str, Any]:
    """Pause an import after nine tenths of the file; measure how long a new worker takes to reach the next batch."""
    _worker("pause", url, str(path), str(batch_rows))
    return _worker("resume", url, str(path), str(batch_rows))


def _worker(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.kintell_worker", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
