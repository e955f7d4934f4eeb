"""Compares completion records of 10,000 organizations, a million members and five videos with `INSERT … SELECT`.

Dagster executes the step over every partition, with its instance in Postgres, in a separate process whose memory is
measured: without the journal, with it, and once more when there is nothing to do. Prints a table, then one JSON object.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.servers import as_writer
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills.postgres.statements import load_statements

QUERIES = load_statements(Path(__file__).with_suffix(".sql"))
_SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB"}
_STEP = "training_completions"


def main(arguments: list[str]) -> None:
    options = _options().parse_args(arguments)
    if options.worker:
        print(json.dumps(_work(options.worker)))
        return
    root = Path(tempfile.mkdtemp(prefix="bench-training-"))
    root.chmod(0o755)
    server = EmbeddedServer(root / "state", _SETTINGS)
    (root / "state").mkdir()
    try:
        server.start()
        figures = _measure(server.url(), root / "state", options)
    finally:
        server.delete()
        shutil.rmtree(root, ignore_errors=True)
    _print(figures)
    print(json.dumps(figures))


def _measure(url: str, state: Path, options: argparse.Namespace) -> dict[str, Any]:
    apply_migrations(url)
    _load(url, options)
    writer = as_writer(url)
    environment = _environment(writer, state)
    tries = []
    for _ in range(options.repeat):  # alternate, so that a slow moment of the machine affects both
        _start_again(url)
        bare_seconds = _bare(writer)
        _start_again(url)
        unjournaled = _run(environment | {"BACKFILLS_JOURNAL": "false"}, "all")
        _start_again(url)
        tries.append((bare_seconds, unjournaled["step"], _run(environment, "all")))
    bare = min(seconds for seconds, _, _ in tries)
    unjournaled_seconds = min(seconds for _, seconds, _ in tries)
    first = min((run for *_, run in tries), key=lambda run: run["step"])
    _expect(_one(url, "organizations_lacking"), 0, "organizations that are not done")
    second = _run(environment, "all")
    _expect(_one(url, "organizations_lacking"), 0, "organizations that are not done")
    due = _run(environment, "due")
    return {
        "organizations": options.organizations,
        "members": options.members,
        "records": _one(url, "count_records"),
        "bare_sql_seconds": bare,
        "step_seconds": first["step"],
        "unjournaled_seconds": unjournaled_seconds,
        "engine_seconds": first["engine"],
        "again_seconds": second["step"],
        "again_engine_seconds": second["engine"],
        "nothing_due_seconds": due["step"],
        "megabytes": max(run["megabytes"] for run in [*(run for *_, run in tries), second]),
        "ratio_to_sql": round(first["step"] / bare, 3),
        "ratio_to_sql_unjournaled": round(unjournaled_seconds / bare, 3),
        "engine_ratio_to_sql": round(first["engine"] / bare, 3),
        "ratio_nothing_to_do": round(second["step"] / first["step"], 3),
        "ratio_nothing_due": round(due["step"] / first["step"], 4),
    }


def _load(url: str, options: argparse.Namespace) -> None:
    binds = {"organizations": options.organizations, "members": options.members, "videos": options.videos}
    with psycopg.connect(url, autocommit=True) as conn:
        for name in ("load_videos", "load_organizations", "load_members"):
            conn.execute(QUERIES[name], binds)
        conn.execute("vacuum analyze")


def _bare(url: str) -> float:
    """Seconds that the single statement takes in psql, on an empty table."""
    began = time.monotonic()
    command = [
        "psql",
        url,
        "--no-psqlrc",
        "--quiet",
        "--set",
        "ON_ERROR_STOP=1",
        "--command",
        QUERIES["bare"],
    ]
    subprocess.run(command, check=True)
    return round(time.monotonic() - began, 3)


def _start_again(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(QUERIES["start_again"])
        conn.execute("vacuum analyze training.employee_training_video_completions")
        conn.execute("checkpoint")


def _environment(url: str, state: Path) -> dict[str, str]:
    os.environ.update(BACKFILLS_HOME=str(state), DATABASE_URL=url)
    for name in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL"):
        os.environ.pop(name, None)
    return {**os.environ, **dagster_environment()}


def _run(environment: dict[str, str], which: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training", "--worker", which]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _work(which: str) -> dict[str, Any]:
    """Execute one run, in the separate process. Returns the seconds of its step and of the engine, and peak memory."""
    import dagster as dg

    from dagster_backfills.definitions import defs

    definitions = defs()
    with dg.DagsterInstance.get() as instance, psycopg.connect(os.environ["DATABASE_URL"]) as conn:
        keys = [
            row[0] for row in conn.execute("select id from training.organizations order by created_at, id")
        ]
        instance.add_dynamic_partitions("training_organizations", keys)
        if which == "all":
            job = definitions.resolve_implicit_global_asset_job_def()
            result = job.get_subset(
                asset_selection={dg.AssetKey(["training", name]) for name in _ASSETS}
            ).execute_in_process(
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": keys[0],
                    "dagster/asset_partition_range_end": keys[-1],
                },
            )
        else:
            job = definitions.resolve_job_def("refresh_training_completions")
            result = job.execute_in_process(instance=instance)
        step = sum(
            event.step_success_data.duration_ms / 1000
            for event in result.all_events
            if event.is_step_success
            and event.step_key in (_STEP, "write_employee_training_video_completions")
        )
        [(engine,)] = conn.execute(
            "select coalesce(sum(extract(epoch from finished_at - started_at)), 0)::float8"
            " from backfill.runs where run_id = %s",
            [result.run_id],
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step": round(step, 3), "engine": round(engine, 3), "megabytes": round(peak)}


_ASSETS = ("employee_training_video_completions", "organization_training_progress")


def _one(url: str, name: str) -> Any:
    with psycopg.connect(url) as conn:
        row = conn.execute(QUERIES[name]).fetchone()
    return row[0] if row else None


def _expect(actual: object, expected: object, what: str) -> None:
    if actual != expected:
        raise SystemExit(f"{what}: {actual!r}, expected {expected!r}")


def _print(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        print(f"{name:<24}{value:>14,}")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--organizations", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--videos", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=2, help="Repetitions of each; the best one counts.")
    parser.add_argument("--worker", choices=["all", "due"], help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
