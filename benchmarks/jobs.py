"""Compares the job queue with PgQueuer and Procrastinate: same server, same durability, same number of no-op jobs, one
worker process each. Then measures our queue alone: latency with an idle worker, and claims from a long queue.

The best of several settings counts for each system. All tables are logged and `synchronous_commit` is on.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
from psycopg import sql

from benchmarks.servers import as_writer
from dagster_backfills.domains.queue import queue
from dagster_backfills.domains.queue.registry import JobType, Registry
from dagster_backfills.domains.queue.worker import Worker, WorkerOptions
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.migrations import apply_migrations

NOOP = Registry([JobType("noop", lambda job: None)])
BATCH = 1000


@contextmanager
def database(server: str, *, migrated: bool) -> Iterator[str]:
    """Create a database on the server, and drop it at the end."""
    name = f"bench_{uuid4().hex[:10]}"
    head, _, tail = server.partition("?")
    url = f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{tail}" if tail else "")
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            if migrated:
                apply_migrations(url)
                with psycopg.connect(url, autocommit=True) as own:
                    own.execute("insert into jobs.job_types (job_type) values ('noop')")
            yield url
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _typical(times: list[float]) -> float:
    """The median batch's seconds times the number of batches, so that a disturbed batch does not count."""
    return statistics.median(times) * len(times)


def ours(url: str, count: int, setting: int) -> tuple[float, float]:
    """Seconds to enqueue all jobs, and from the first claim to the last completion."""
    writer = as_writer(url)
    with psycopg.connect(writer, autocommit=True) as conn:
        times = []
        for _ in range(0, count, BATCH):
            begun = time.perf_counter()
            queue.enqueue_many(conn, "noop", [{}] * BATCH, registry=NOOP)
            times.append(time.perf_counter() - begun)
        enqueued = _typical(times)
        with psycopg.connect(url, autocommit=True) as administrator:
            administrator.execute("analyze")
        done, all_done = 0, threading.Event()

        def on_result(result: object) -> None:
            nonlocal done
            done += 1
            if done == count:
                all_done.set()

        worker = Worker(
            writer, NOOP, WorkerOptions(concurrency=setting, idle_seconds=600), on_result=on_result
        )
        thread = threading.Thread(target=worker.run)
        begun = time.perf_counter()
        thread.start()
        all_done.wait(300)
        worked = time.perf_counter() - begun
        worker.stop()
        thread.join()
        assert conn.execute(
            "select count(*) from jobs.background_jobs where status = 'completed'"
        ).fetchone() == (count,)
    return enqueued, worked


def pgqueuer(url: str, count: int, setting: int) -> tuple[float, float]:
    """PgQueuer with asyncpg and uvloop. `setting` is its batch size. Its tables are durable (its default)."""
    import asyncpg
    import uvloop
    from pgqueuer import PgQueuer
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode

    async def run() -> tuple[float, float]:
        producer = await asyncpg.connect(url)
        queries = Queries(AsyncpgDriver(producer))
        await queries.install()
        times = []
        for _ in range(0, count, BATCH):
            begun = time.perf_counter()
            await queries.enqueue(["noop"] * BATCH, [None] * BATCH, [0] * BATCH)
            times.append(time.perf_counter() - begun)
        enqueued = _typical(times)
        consumer = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))
        done = 0

        @consumer.entrypoint("noop")
        async def noop(job: object) -> None:
            nonlocal done
            done += 1

        await producer.execute("analyze")
        begun = time.perf_counter()
        await consumer.qm.run(batch_size=setting, mode=QueueExecutionMode.drain)
        worked = time.perf_counter() - begun
        assert done == count
        assert not await producer.fetchval("select count(*) from pgqueuer")
        await producer.close()
        return enqueued, worked

    return uvloop.run(run())


def procrastinate(url: str, count: int, setting: int) -> tuple[float, float]:
    """Procrastinate with psycopg. `setting` is its concurrency."""
    from procrastinate import App, PsycopgConnector

    async def run() -> tuple[float, float]:
        app = App(connector=PsycopgConnector(conninfo=url, min_size=4, max_size=max(8, setting // 4)))

        @app.task(name="noop")
        async def noop() -> None:
            pass

        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            times = []
            for _ in range(0, count, BATCH):
                begun = time.perf_counter()
                await noop.batch_defer_async(*({} for _ in range(BATCH)))
                times.append(time.perf_counter() - begun)
            enqueued = _typical(times)
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("analyze")
            begun = time.perf_counter()
            await app.run_worker_async(concurrency=setting, wait=False, install_signal_handlers=False)
            worked = time.perf_counter() - begun
        with psycopg.connect(url) as conn:
            row = conn.execute(
                "select count(*) from procrastinate_jobs where status = 'succeeded'"
            ).fetchone()
            assert row == (count,)
        return enqueued, worked

    return asyncio.run(run())


SYSTEMS: dict[str, tuple[Callable[[str, int, int], tuple[float, float]], tuple[int, ...]]] = {
    "dagster_backfills": (ours, (1, 4)),
    "pgqueuer": (pgqueuer, (10, 100, 1000)),
    "procrastinate": (procrastinate, (1, 10)),
}


def compare(server: str, count: int) -> dict[str, dict[str, float]]:
    """Jobs per second of each system with its best setting, each measured in a separate process."""
    results = {}
    for name, (_, settings) in SYSTEMS.items():
        rates = []
        for setting in settings:
            command = [
                sys.executable,
                "-m",
                "benchmarks.jobs",
                "--one",
                name,
                str(setting),
                "--jobs",
                str(count),
            ]
            out = subprocess.run(
                [*command, "--server", server], check=True, capture_output=True, text=True
            ).stdout
            rates.append({**json.loads(out.splitlines()[-1]), "setting": setting})
            print(f"  {name:18} setting {setting:5}: {rates[-1]['work']:9,.0f} jobs/s processed")
        best = max(rates, key=lambda r: r["work"])
        results[name] = {**best, "enqueue": max(r["enqueue"] for r in rates)}
    return results


def one(server: str, name: str, setting: int, count: int) -> dict[str, float]:
    system, _ = SYSTEMS[name]
    with database(server, migrated=name == "dagster_backfills") as url:
        enqueued, worked = system(url, count, setting)
    return {"enqueue": count / enqueued, "work": count / worked}


def latency(server: str, samples: int) -> list[float]:
    """Milliseconds from the call of `enqueue` to the handler's first line, with an idle worker."""
    started: list[float] = []
    registry = Registry([JobType("noop", lambda job: started.append(time.perf_counter()))])
    milliseconds = []
    with database(server, migrated=True) as url, psycopg.connect(as_writer(url), autocommit=True) as conn:
        worker = Worker(as_writer(url), registry, WorkerOptions(idle_seconds=600, poll_seconds=5))
        thread = threading.Thread(target=worker.run)
        thread.start()
        time.sleep(1)
        for n in range(samples):
            begun = time.perf_counter()
            queue.enqueue(conn, "noop", registry=registry)
            while len(started) <= n:
                time.sleep(0.0005)
            milliseconds.append((started[n] - begun) * 1000)
            time.sleep(0.02)
        worker.stop()
        thread.join()
    return milliseconds


def claims(server: str, waiting: int) -> tuple[float, float, str]:
    """Milliseconds to claim 100 jobs with 1,000 and with `waiting` due jobs (and as many for later); the query plan."""
    with database(server, migrated=True) as url, psycopg.connect(as_writer(url), autocommit=True) as conn:
        queue.enqueue_many(conn, "noop", [{}] * 1000, registry=NOOP)
        short = _claim_ms(conn)
        for _ in range(0, waiting, BATCH):
            queue.enqueue_many(conn, "noop", [{}] * BATCH, registry=NOOP)
        conn.execute(
            "select jobs.enqueue_background_jobs("
            "'noop', array_fill('{}'::jsonb, array[%s]), 1, now() + interval '1 day')",
            [waiting],
        )
        long = _claim_ms(conn)
        plan = conn.execute(
            "explain (analyze, costs off, timing off, summary off) select q.job_id from jobs.job_queue as q"
            " where q.run_after is null order by q.priority, q.created_at, q.job_id limit 100 for update skip locked"
        ).fetchall()
    return short, long, "\n".join(row[0] for row in plan)


def _claim_ms(conn: psycopg.Connection) -> float:
    times = []
    for _ in range(9):
        begun = time.perf_counter()
        assert len(queue.claim(conn, "bench", 100)) == 100
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def main() -> None:
    """Print the tables, and as the last line one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--server", default="")
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    server = options.server or resolve_database_url()
    if options.one:
        print(json.dumps(one(server, options.one[0], int(options.one[1]), options.jobs)))
        return
    print(f"{options.jobs:,} no-op jobs, one worker process")
    rates = compare(server, options.jobs)
    print(f"\n{'system':20}{'enqueue/s':>12}{'processed/s':>14}{'setting':>9}")
    for name, rate in rates.items():
        print(f"{name:20}{rate['enqueue']:12,.0f}{rate['work']:14,.0f}{rate['setting']:9}")
    times = sorted(latency(server, options.samples))
    p99 = times[int(len(times) * 0.99) - 1]
    print(f"\nenqueue to start, idle worker: median {statistics.median(times):.1f} ms, p99 {p99:.1f} ms")
    short, long, plan = claims(server, options.waiting)
    print(
        f"claim of 100: {short:.1f} ms with 1,000 due; {long:.1f} ms with {options.waiting:,} due and as many for later"
    )
    print(plan)
    own = rates["dagster_backfills"]
    print(
        json.dumps(
            {
                "jobs_per_second": round(own["work"]),
                "ratio_to_pgqueuer": round(own["work"] / rates["pgqueuer"]["work"], 2),
                "ratio_to_procrastinate": round(own["work"] / rates["procrastinate"]["work"], 2),
                "enqueue_per_second": round(own["enqueue"]),
                "enqueue_ratio_to_pgqueuer": round(own["enqueue"] / rates["pgqueuer"]["enqueue"], 2),
                "enqueue_ratio_to_procrastinate": round(
                    own["enqueue"] / rates["procrastinate"]["enqueue"], 2
                ),
                "latency_median_ms": round(statistics.median(times), 2),
                "latency_p99_ms": round(p99, 2),
                "claim_ratio_long_to_short": round(long / short, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
