"""Measures wide backfills: 10,000 cohorts with three failing, a retry, 1,000 scattered cohorts, Dagster's defaults.

A webserver and a daemon run the project's code location on an embedded Postgres; backfills are launched through
GraphQL. Cohorts are small, because Dagster's overhead is measured. Prints a table, then one JSON object.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from benchmarks.backfills import Backfills, wait_until
from benchmarks.servers import as_writer, dagster_servers
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills.postgres.statements import load_statements

MODULE = "dagster_backfills.definitions"
ASSETS = ["progress/user_progress_stats", "progress/cohort_stats"]
ROOT = Path(__file__).resolve().parents[1]
# Dagster's own Postgres storage with its defaults, except a start time-out that 1,000 partitions do not exceed.
DEFAULTS = """
storage: {postgres: {postgres_url: {env: DAGSTER_POSTGRES_URL}}}
run_monitoring: {enabled: true, start_timeout_seconds: 1800}
telemetry: {enabled: false}
"""


_COLUMNS = ("noticing", "announcing", "starting", "running", "total")


@dataclass(frozen=True)
class Measured:
    """Seconds of one backfill: `total` from the launch until every partition is shown as done or failed.

    It consists of `noticing` (the daemon looks at backfills every 30 s), `announcing` (one planned event per
    partition), `starting` (the run's process) and `running` (the work and its events). With several runs, these are
    the last run's.
    """

    total: float
    noticing: float
    announcing: float
    starting: float
    running: float
    runs: int
    failed_runs: int


class Bench:
    """The server and the data of the benchmark."""

    def __init__(self, root: Path, partitions: int) -> None:
        self.root, self.partitions = root, partitions
        self.server = EmbeddedServer(root / "state")
        self.queries = load_statements(Path(__file__).with_suffix(".sql"))
        self.keys = [f"cohort-{n:05}" for n in range(partitions)]
        self.broken = [self.keys[3], self.keys[partitions // 2], self.keys[-1]]

    def prepare(self) -> None:
        self.server.start()
        apply_migrations(self.server.url())
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            conn.execute("create database dagster_batched")
            conn.execute("create database dagster_default")
        with self.connect() as conn:
            conn.execute(self.queries["make_breakable"])

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.server.url(), autocommit=True)

    def execute(self, name: str, **binds: Any) -> Any:
        with self.connect() as conn:
            cursor = conn.execute(self.queries[name], binds)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def load(self) -> None:
        """Load the data with triggers disabled, as in a database that has no statistics yet."""
        with self.connect() as conn:
            conn.execute("set session_replication_role = replica")
            for name in ("load_cohorts", "load_students", "load_answers"):
                conn.execute(self.queries[name], {"cohorts": self.partitions})
            conn.execute("vacuum analyze")

    @contextmanager
    def ui(self, database: str, settings: str) -> Iterator[Backfills]:
        home = self.root / database
        home.mkdir()
        (home / "dagster.yaml").write_text(settings)
        # Dagster's own storage class needs its driver in the URL.
        url = self.server.url(database).replace("postgresql://", "postgresql+psycopg2://")
        environment = {"DATABASE_URL": as_writer(self.server.url()), "DAGSTER_POSTGRES_URL": url}
        with dagster_servers(home, MODULE, environment, working_directory=ROOT) as webserver:
            ui = Backfills(webserver)
            # These sensors would compute what is missing before the benchmark launches it.
            for sensor in ("progress_stats_refresh", "progress_cohorts_sync"):
                ui.stop_sensor(sensor)
            os.environ.update(environment)
            with dg.DagsterInstance.from_config(str(home)) as instance:
                instance.add_dynamic_partitions("progress_cohorts", self.keys)
            yield ui

    def backfill(self, ui: Backfills, keys: list[str], runs: int = 1) -> Measured:
        """Launch `keys` of both assets, and wait until every partition is reported."""
        launched = time.time()
        backfill_id = ui.launch(ASSETS, keys)

        def over() -> bool:
            started = ui.runs_of(backfill_id)
            return len(started) == runs and all(run["endTime"] for run in started)

        wait_until(over, f"{runs} runs over {len(keys):,} partitions", seconds=1800)
        wait_until(
            lambda: all(ui.counts(asset).in_progress == 0 for asset in ASSETS),
            "states",
            seconds=60,
            every=0.1,
        )
        total = time.time() - launched
        finished = sorted(ui.runs_of(backfill_id), key=lambda run: run["endTime"])
        last, enqueued = finished[-1], ui.enqueued_at(finished[-1]["runId"])
        return Measured(
            total=total,
            noticing=min(run["creationTime"] for run in finished) - launched,
            announcing=enqueued - last["creationTime"],
            starting=last["startTime"] - enqueued,
            running=last["endTime"] - last["startTime"],
            runs=len(finished),
            failed_runs=sum(run["status"] != "SUCCESS" for run in finished),
        )

    def scattered(self, ui: Backfills) -> float:
        """Recompute every tenth cohort, all stale, in one run. Returns the seconds from the launch to its end."""
        self.execute("mark_scattered_stale", cohorts=self.partitions)
        began = time.monotonic()
        config = {"which": "stale"}
        run_id = ui.launch_job("refresh_progress_stats", MODULE, config)
        wait_until(lambda: bool(ui.run(run_id)["endTime"]), "the scattered run", seconds=600)
        seconds = time.monotonic() - began
        _expect(ui.run(run_id)["status"], "SUCCESS", "status of the scattered run")
        _expect(self.execute("stale_left"), 0, "stale cohorts left")
        return seconds


def _expect(actual: object, expected: object, what: str) -> None:
    if actual != expected:
        raise SystemExit(f"{what}: {_short(actual)}, expected {_short(expected)}")


def _short(value: object) -> str:
    if isinstance(value, set) and len(value) > 10:
        return f"{len(value):,} of them, {', '.join(sorted(value)[:5])} …"
    return repr(value)


def _check_states(ui: Backfills, keys: list[str], failed: list[str]) -> None:
    for asset in ASSETS:
        states = ui.states(asset)
        _expect(states["failed"], set(failed), f"failed partitions of {asset}")
        _expect(states["materialized"], set(keys) - set(failed), f"materialized partitions of {asset}")


def batched(bench: Bench, some: int) -> tuple[float, dict[str, Measured]]:
    """With the project's settings: all cohorts with three failing, a retry of these, scattered ones, a few."""
    with bench.ui("dagster_batched", (ROOT / "dagster.yaml").read_text()) as ui:
        bench.load()
        bench.execute("break_cohorts", broken=bench.broken)
        wide = _shown(f"{bench.partitions:,} cohorts, 3 failing", bench.backfill(ui, bench.keys))
        _expect((wide.runs, wide.failed_runs), (1, 1), "runs and failed runs")
        _check_states(ui, bench.keys, bench.broken)

        bench.execute("mend_cohorts")
        retry = _shown("retry of these 3, the last run", bench.backfill(ui, bench.broken, runs=3))
        _expect((retry.runs, retry.failed_runs), (3, 0), "runs and failed runs of the retry")
        _check_states(ui, bench.keys, [])
        _expect(bench.execute("cohorts_without_stats"), 0, "cohorts without statistics")

        scattered = bench.scattered(ui)
        print(
            f"{f'{bench.partitions // 10:,} scattered stale cohorts in one run':42}{scattered:60.1f}",
            flush=True,
        )
        few = _shown(f"{some:,} cohorts", bench.backfill(ui, bench.keys[:some]))
        _expect(few.failed_runs, 0, "failed runs")
    return scattered, {"wide": wide, "retry": retry, "some": few}


def default(bench: Bench, some: int) -> Measured:
    """With Dagster's defaults, on the same data."""
    with bench.ui("dagster_default", DEFAULTS) as ui:
        measured = _shown(f"{some:,} cohorts, Dagster's defaults", bench.backfill(ui, bench.keys[:some]))
        _expect(measured.failed_runs, 0, "failed runs")
        return measured


def main(arguments: list[str]) -> None:
    options = _options().parse_args(arguments)
    root = Path(tempfile.mkdtemp(prefix="bench-partitions-"))
    root.chmod(0o755)  # the server may have to run as another user
    bench = Bench(root, options.partitions)
    try:
        bench.prepare()
        print(f"{'seconds':42}" + "".join(f"{column:>12}" for column in _COLUMNS), flush=True)
        scattered, ours = batched(bench, options.some)
        stock = None if options.no_default else default(bench, options.some)
    finally:
        bench.server.delete()
        shutil.rmtree(root, ignore_errors=True)
    sizes = {"partitions": options.partitions, "some": options.some}
    print(json.dumps(sizes | _figures(scattered, ours, stock)))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=10_000, help="total number of cohorts")
    parser.add_argument("--some", type=int, default=1_000, help="cohorts to compare with Dagster's defaults")
    parser.add_argument("--no-default", action="store_true", help="skip Dagster's defaults")
    return parser


def _shown(name: str, measured: Measured) -> Measured:
    print(f"{name:42}" + "".join(f"{getattr(measured, column):12.1f}" for column in _COLUMNS), flush=True)
    return measured


def _figures(scattered: float, ours: dict[str, Measured], stock: Measured | None) -> dict[str, float]:
    wide, some = ours["wide"], ours["some"]
    figures = {
        "seconds_10k": wide.total,
        "seconds_10k_noticing": wide.noticing,
        "seconds_10k_announcing": wide.announcing,
        "seconds_10k_starting": wide.starting,
        "seconds_10k_running": wide.running,
        "seconds_retry": ours["retry"].total,
        "seconds_1k_scattered": scattered,
        "seconds_1k": some.total,
    }
    if stock:
        figures["seconds_1k_default"] = stock.total
        figures["ratio_to_default"] = some.total / stock.total
        # Without the up to 30 s until the daemon notices the backfill, which are random and the same for both.
        figures["ratio_to_default_once_noticed"] = (some.total - some.noticing) / (
            stock.total - stock.noticing
        )
    return {name: round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
