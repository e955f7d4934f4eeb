"""Runs on several Celery workers over a real broker: all of them work, and a killed worker costs one retry.

Each worker has its own network namespace, if this machine allows that. The backfill is
launched like in the UI, through a real webserver and daemon.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills.samples.scoring import ScoringSize, load_sample
from dagster_backfills_tests.chaos.domains import newest_days
from dagster_backfills_tests.chaos.lan import Lan, lan_of
from dagster_backfills_tests.chaos.stack import ROOT, environment, free_port
from dagster_backfills_tests.e2e.chain import ASSETS, worked_before
from dagster_backfills_tests.e2e.conftest import swift_servers
from dagster_backfills_tests.e2e.graphql import LOCATION, finished_backfill, launch_backfill, wait_for
from dagster_backfills_tests.haste import MONITORING, hurried

pytest.importorskip("dagster_celery", reason="the extra `celery` is not installed")
from celery import Celery

REDIS = shutil.which("redis-server")
DAYS = 4
NAMES = ("one", "two", "three")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(REDIS is None, reason="redis-server is not installed"),
]
# A run stops at its first row until the gate opens.
GATE = """
    create table gate (closed boolean);
    insert into gate values (true);
    create function wait_at_gate() returns trigger language plpgsql as
    $$ begin
        while exists (select from gate) loop
            perform pg_sleep(0.1);
        end loop;
        return new;
    end $$;
    create trigger wait_at_gate before insert on scoring.commitment_scores
    for each row execute function wait_at_gate();
"""
WAITING = """
    select count(*), count(distinct client_addr) from pg_stat_activity
    where datname = current_database() and state = 'active' and wait_event = 'PgSleep'
"""


@pytest.fixture
def lan():
    with lan_of(NAMES) as made:
        yield made


@pytest.fixture
def server(lan, request, tmp_path):
    """A migrated database that every machine of the network reaches, by TCP if there are several."""
    if not lan.namespaces:
        yield request.getfixturevalue("database_url")
        return
    postgres = EmbeddedServer(tmp_path / "server", {"listen_addresses": lan.address, "fsync": "off"})
    try:
        postgres.start()
        with psycopg.connect(postgres.url(), autocommit=True) as conn:
            with (postgres.data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {lan.address}/24 trust\n")
            conn.execute("select pg_reload_conf()")
            port, name = conn.info.port, conn.info.dbname
        url = f"postgresql://postgres@{lan.address}:{port}/{name}"
        wait_for("the server's door", lambda: _answers(url))
        apply_migrations(url)
        yield url
    finally:
        postgres.delete()


def _answers(url):
    try:
        with psycopg.connect(url):
            return True
    except psycopg.OperationalError:
        return False


@pytest.fixture
def broker(lan, tmp_path):
    port, password = free_port(), secrets.token_hex(16)
    command = [REDIS, "--port", str(port), "--bind", lan.address, "--requirepass", password]
    process = subprocess.Popen([*command, "--dir", str(tmp_path), "--save", ""], stdout=subprocess.DEVNULL)
    while socket.socket().connect_ex((lan.address, port)):
        time.sleep(0.05)
    yield f"redis://:{password}@{lan.address}:{port}/0"
    process.kill()
    process.wait()


class Workers:
    """Celery workers by name, each in its own process group."""

    def __init__(self, env, folder, lan: Lan):
        self.env, self.folder, self.lan, self.processes = env, folder, lan, {}

    def start(self, name):
        command = [
            str(Path(sys.executable).parent / "celery"), "-A", "dagster_backfills.instance.celery.app", "worker",
            "--queues", "dagster", "--concurrency", "1", "--hostname", f"{name}@test", "--loglevel", "WARNING",
        ]  # fmt: skip
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self.lan.on(name, command),
                env=self.env,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ask(self, what):
        """The answers of the running workers, by name."""
        with Celery(broker=self.env["CELERY_BROKER_URL"]) as app:
            answers = getattr(app.control.inspect(timeout=2), what)() or {}
        return {worker.removesuffix("@test"): answer for worker, answer in answers.items()}

    def at_work(self):
        return {worker for worker, tasks in self.ask("active").items() if tasks}

    def kill(self, name):
        process = self.processes.pop(name)
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture
def stack(server, broker, lan, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    make = [sys.executable, str(ROOT / "deploy" / "celery" / "instance.py")]
    settings = subprocess.run(make, capture_output=True, text=True, check=True).stdout
    (home / "dagster.yaml").write_text(hurried(settings, MONITORING))
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("create schema dagster")
        # The chain would start a run for the newest day as soon as the daemon runs.
        worked_before(conn, [newest_days(conn)[-1] + timedelta(days=n) for n in (0, 1)])
    env = environment(server, home) | {"CELERY_BROKER_URL": broker, "SCORING_CATCH_UP_DAYS": "1"}
    workers = Workers(env, tmp_path, lan)
    with swift_servers(home, LOCATION, env, ROOT) as webserver:
        yield webserver, workers
        for name in list(workers.processes):
            workers.kill(name)


def test_a_backfill_runs_on_all_workers_and_a_killed_worker_costs_one_retry(stack, server):
    webserver, workers = stack
    # Over a Unix socket, backends have no address.
    machines = len(workers.lan.namespaces)
    with psycopg.connect(server, autocommit=True) as conn:
        newest = newest_days(conn)[-1]
        load_sample(conn, newest, ScoringSize(gyms=2, members=60, coaches_per_gym=2))
        conn.execute("update scoring.members set expected_visits_per_week = null")
        conn.execute(GATE)
        for name in NAMES:
            workers.start(name)
        # Every second day, because adjacent days would be one run.
        days = [(newest - timedelta(days=2 * n + 3)).isoformat() for n in range(DAYS)]
        wait_for("the workers", lambda: len(workers.ask("ping")) == len(NAMES))
        backfill = launch_backfill(webserver, ASSETS, days)
        wait_for(
            "all workers in the middle of a day",
            lambda: (
                conn.execute(WAITING).fetchone() == (len(NAMES), machines) and workers.at_work() == set(NAMES)
            ),
            timeout=300,
        )
        workers.kill("two")
        conn.execute("delete from gate")
        status = wait_for("the backfill's end", lambda: finished_backfill(webserver, backfill), timeout=400)
        assert status == "COMPLETED_SUCCESS"
        runs = conn.execute(
            "select status, count(*) from dagster.runs where partition = any(%s)"
            " or exists (select from dagster.run_tags t where t.run_id = runs.run_id and t.key = 'dagster/backfill')"
            " group by 1 order by 1",
            [days],
        ).fetchall()
        assert dict(runs) == {"FAILURE": 1, "SUCCESS": len(days)}
        done = {name: stats["total"].get("execute_job", 0) for name, stats in workers.ask("stats").items()}
        assert set(done) == {"one", "three"} and min(done.values()) > 0 and sum(done.values()) >= len(days)
        whole = conn.execute(
            "select day::text, count(*) filter (where outcome = 'complete') from scoring.chain_days"
            " where day::text = any(%s) group by 1",
            [days],
        ).fetchall()
        assert dict(whole) == dict.fromkeys(days, 3)
        # Each member who had joined by a day has one row for it, and the day's account agrees.
        each = (
            "select d.expected, d.done, d.failed, count(*), count(distinct s.member_id) from scoring.chain_days d"
            " join scoring.commitment_scores s using (day)"
            " where d.day::text = any(%s) and d.asset = 'scoring/commitment_scores' group by d.day, 1, 2, 3"
        )
        accounts = conn.execute(each, [days]).fetchall()
        assert len(accounts) == len(days)
        assert all(
            expected == done == rows == members > 0 and not failed
            for expected, done, failed, rows, members in accounts
        )
