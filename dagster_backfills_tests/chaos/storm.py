"""A storm: traffic in all domains during faults, then a calm, then a check of every invariant.

Not here: the table of all storms (`__main__`).
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills.samples.progress import load_progress
from dagster_backfills.samples.progress_rows import ProgressSize
from dagster_backfills.samples.scoring import ScoringSize, load_sample
from dagster_backfills.samples.training import generate_training, load_training
from dagster_backfills_tests.chaos import domains
from dagster_backfills_tests.chaos.domains import Expected, newest_days
from dagster_backfills_tests.chaos.faults import Fault
from dagster_backfills_tests.chaos.stack import BIN, ROOT, Postgres, Stack, environment, running_stack
from dagster_backfills_tests.chaos.traffic import Traffic
from dagster_backfills_tests.domains.kintell.sample import add_users
from dagster_backfills_tests.programs import run

TEMPLATE = "chaos_template"
# Writing a row takes this long, so that faults hit work in progress. It uses no CPU.
_SLOWED = {
    "training.employee_training_video_completions": 0.004,
    "progress.user_progress_stats": 0.005,
    "kintell.kintell_sessions": 0.005,
    "scoring.commitment_scores": 0.02,
}
_OPERATORS = """
    update jobs.queue_settings set lease = '10 seconds', retry_base = '1 second', retry_cap = '5 seconds';
    create schema chaos;
    create table chaos.job_ends (job_id uuid, status text, attempt integer);
    create function chaos.note_end() returns trigger language plpgsql as
    $$ begin insert into chaos.job_ends values (new.id, new.status, new.attempt); return new; end $$;
    create trigger note_end after update on jobs.background_jobs
    for each row when (new.completed_at is not null and old.completed_at is null) execute function chaos.note_end();
    create function chaos.slow() returns trigger language plpgsql as
    $$ begin perform pg_sleep(tg_argv[0]::float); return new; end $$;
"""


_LAST_LINK_UNDONE = """
    delete from scoring.coach_actions;
    delete from scoring.chain_days where asset = 'scoring/coach_actions';
"""


@dataclass(frozen=True)
class Size:
    """The amount of work, and the duration of the storm."""

    seconds: float = 45
    pause: tuple[float, float] = (3, 8)
    files: int = 2
    rows: int = 1500
    patience: float = 300


@dataclass
class Report:
    """What a storm did and left. `by_itself`: seconds of calm until every invariant held, if no command was needed."""

    strikes: Counter[str]
    by_itself: float | None = None
    commands: list[str] = field(default_factory=list)
    broken: dict[str, list[str]] = field(default_factory=dict)
    work: dict[str, str] = field(default_factory=dict)
    waited_for: dict[str, list[str]] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


@dataclass
class Ground:
    """What storms share: the server, the loaded template database, and the result on an undisturbed stack."""

    postgres: Postgres
    folder: Path
    days: list
    scores: dict
    completed: list

    @classmethod
    def prepare(cls, folder: Path, small: bool = False) -> "Ground":
        """`small`: only the newest day's last step of the chain is left to do, which fits into a short storm."""
        postgres = Postgres(folder / "server")
        postgres.start()
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as conn:
            conn.execute(f"create database {TEMPLATE}")
        url = postgres.url(TEMPLATE)
        apply_migrations(url)
        with psycopg.connect(url, autocommit=True) as conn:
            days = newest_days(conn)[-1:] if small else newest_days(conn)
            load_training(conn, generate_training(organizations=25, members=300))
            load_progress(
                conn,
                ProgressSize(schools=3, cohorts=20, users=300, progress=4_000, questions=40),
                seed=1,
            )
            load_sample(conn, days[-1], ScoringSize(gyms=3, members=120, coaches_per_gym=2))
            conn.execute("update scoring.members set expected_visits_per_week = null")  # all can be scored
            add_users(conn)
            conn.execute(_OPERATORS)
        _score(folder, url, days[:1])
        undisturbed = postgres.create("chaos_undisturbed", TEMPLATE)
        _score(folder, undisturbed, days[1:])
        with psycopg.connect(undisturbed, autocommit=True) as conn:
            scores = {
                table: conn.execute(statement, [days]).fetchall()
                for table, statement in domains.SCORES.items()
            }
            completed = conn.execute(
                "select member_id, video_id, completed_at from training.employee_training_video_completions"
                " where completed_at is not null"
            ).fetchall()
        with psycopg.connect(url, autocommit=True) as conn:
            if small:
                conn.execute(_LAST_LINK_UNDONE)
            for table, seconds in _SLOWED.items():
                conn.execute(
                    f"create trigger slow before insert or update on {table}"
                    f" for each row execute function chaos.slow('{seconds}')"
                )
        return cls(postgres, folder, days, scores, completed)

    def delete(self) -> None:
        self.postgres.delete()


def _score(folder: Path, url: str, days: Sequence) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create schema if not exists dagster")
    home = folder / "scoring_home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    for day in days:
        command = [str(BIN / "backfills"), "run", "scoring", "-p", day.isoformat(), "--yes"]
        done = run(command, env=environment(url, home))
        assert done.returncode == 0, done.stderr + done.stdout


@contextmanager
def _calm(stack: Stack) -> Iterator[None]:
    """Ends all faults: the second daemon is gone, the clock is correct, everything is running."""
    if "second_daemon" in stack.services:
        stack.services.pop("second_daemon").stop()
    if stack.clock:
        stack.set_clock(0)
    stack.postgres.volume.empty()
    stack.postgres.start()
    yield


def storm(ground: Ground, faults: Sequence[Fault], seed: int, size: Size, forked: bool = False) -> Report:
    """Applies these faults in turn, at moments that depend on the seed. forked: see `running_stack`."""
    rng = random.Random(seed)
    database = f"storm_{seed}_{faults[0].name.replace('-', '_')}"
    url = ground.postgres.create(database, TEMPLATE)
    del url
    expected = Expected(days=ground.days, scores=ground.scores, completed=ground.completed)
    report = Report(Counter())
    with_clock = any(fault.kind == "clock" for fault in faults)
    with running_stack(ground.postgres, database, ground.folder, with_clock, forked) as stack:
        traffic = Traffic(stack, expected, seed, size.files, size.rows)
        traffic.start()
        _wait_for_first_run(stack)
        end, number = time.monotonic() + size.seconds, 0
        while time.monotonic() < end or number < len(faults):
            time.sleep(rng.uniform(*size.pause))
            fault = faults[number % len(faults)]
            number += 1
            hit = fault.strike(stack, rng)
            report.strikes[fault.name] += hit
        with _calm(stack):
            traffic.finish()
            _settle(stack, expected, report, size)
        with stack.connect() as conn:
            report.work = _work(conn)
        report.restarts = {name: service.starts - 1 for name, service in stack.services.items()}
    ground.postgres.drop(database)
    return report


def _wait_for_first_run(stack: Stack) -> None:
    deadline = time.monotonic() + 120
    while not stack.runs():
        assert time.monotonic() < deadline, (stack.home / "daemon.log").read_text()[-3000:]
        time.sleep(0.2)


def _settle(stack: Stack, expected: Expected, report: Report, size: Size) -> None:
    """Waits until every invariant holds. Runs the operator's commands for the rest, and reports what stays broken."""
    began = time.monotonic()
    found = _wait_until_whole(stack, expected, size.patience)
    if not found:
        report.by_itself = time.monotonic() - began
        return
    report.waited_for = found
    for domain in found:
        report.commands += domains.mend(stack, expected, domain)
    report.broken = _wait_until_whole(stack, expected, size.patience / 2)


def _wait_until_whole(stack: Stack, expected: Expected, patience: float) -> dict[str, list[str]]:
    deadline, quiet_since = time.monotonic() + patience, time.monotonic()
    while True:
        found = domains.broken(stack, expected)
        if not found or time.monotonic() > deadline:
            return found
        with stack.connect() as conn:
            if conn.execute(_UNFINISHED).fetchone() != (0,):
                quiet_since = time.monotonic()
        # An import waits for a person after its third attempt; the others are retried automatically.
        if set(found) == {"kintell"} and time.monotonic() > quiet_since + _QUIET_SECONDS:
            return found
        time.sleep(3)


_QUIET_SECONDS = 75
_UNFINISHED = """
    select count(*) from dagster.runs where status not in ('SUCCESS', 'FAILURE', 'CANCELED')
    and (pipeline_name like 'import%' or pipeline_name like '%kintell%' or pipeline_name like '%daily%')
"""
_WORK = {
    "training": "select count(*) from training.employee_training_video_completions where backfill_id is not null",
    "progress": "select count(*) from progress.user_progress_stats",
    "kintell": "select count(*) from kintell.kintell_sessions",
    "jobs": "select count(*) from jobs.background_jobs",
    "scoring": "select count(*) from scoring.commitment_scores",
}


def _work(conn: psycopg.Connection) -> dict[str, str]:
    """Rows that each domain had to write, and the number of runs by final status."""
    done = {name: str((conn.execute(query).fetchone() or ("?",))[0]) for name, query in _WORK.items()}
    rows = conn.execute("select status, count(*) from dagster.runs group by 1 order by 1").fetchall()
    return {**done, "runs": ", ".join(f"{count} {status}" for status, count in rows)}
