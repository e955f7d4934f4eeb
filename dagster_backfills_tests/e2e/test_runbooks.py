"""Executes every command and statement of the runbooks and of two how-tos on sample data, and checks the results."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.scoring.chain import newest_day
from dagster_backfills.samples.kintell import demo_file
from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.domains.kintell.sample import row, write_csv
from dagster_backfills_tests.e2e.checkout import Checkout
from dagster_backfills_tests.e2e.pages import Done, Reader

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

DOCS = "docs/runbooks/"
COHORT, STUDENT = "coh_000007", "select min(user_id) from progress.user_progress"
USERS = {"participant_email": "participant.00@example.com", "volunteer_email": "volunteer.00@example.com"}
Values = Mapping[str, str | Callable[[str], str]]


@pytest.fixture(scope="module")
def checkout(
    server_url: str, template: str, project_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """A database with all sample data, without any computed rows."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "sql").symlink_to(project_root / "sql")
    with new_database(server_url, template) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            for domain in ("training", "progress", "scoring", "kintell", "queue"):
                import_module(f"dagster_backfills.samples.{domain}").load_demo(conn)
        shutil.copy(demo_file(), folder / "sessions.csv")
        yield Checkout(folder, url, {"KINTELL_ALLOWED_LOCATIONS": str(folder)})


@pytest.fixture
def db(checkout: Checkout) -> Iterator[psycopg.Connection]:
    with psycopg.connect(checkout.database_url, autocommit=True) as conn:
        yield conn


def filled(values: Values) -> Callable[[str], str]:
    """Return a function that replaces the placeholders of a snippet. A value may depend on the snippet."""

    def fill(snippet: str) -> str:
        for name, value in values.items():
            if found := re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", snippet):
                given = value(snippet) if callable(value) else value
                snippet = snippet[: found.start()] + given + snippet[found.end() :]
        return snippet

    return fill


def follow(
    page: str,
    checkout: Checkout,
    root: Path,
    values: Values,
    *,
    ends: Mapping[str, int | None] | None = None,
    inline: bool = True,
) -> dict[str, Done]:
    """Execute the page and the monitoring queries that it names. Returns each snippet's last result."""
    instead = {'eval "$(backfills env)"': str}
    reader = Reader(instead=instead, fill=filled(values), ends=ends or {}, inline=inline)
    done = {each.what: each for each in reader.follow(root / page, checkout)}
    text = (root / page).read_text()
    with psycopg.connect(checkout.database_url) as conn:
        for name in re.findall(r"\b\w+\.sql\b", text):
            conn.execute((root / "sql" / "monitoring" / name).read_text())
    # The page must name all queries of its own domain; queries for every backfill (`backfill_…`) are optional.
    named = set(re.findall(r"\b(?!backfill_)\w+\.sql\b", text))
    prefix = {found.split("_")[0] for found in named}
    files = {file.name for each in prefix for file in (root / "sql" / "monitoring").glob(f"{each}_*.sql")}
    assert "_*.sql" in text or files == named
    return done


def only(conn: psycopg.Connection, query: str, *binds: Any) -> Any:
    (found,) = conn.execute(query, binds).fetchone() or (None,)  # type: ignore[call-overload]
    return found


def one(done: Mapping[str, Done], *words: str) -> Done:
    """The only snippet that contains all of these words."""
    [found] = [each for what, each in done.items() if all(word in what for word in words)]
    return found


def test_the_training_runbook_works(checkout: Checkout, db: psycopg.Connection, project_root: Path) -> None:
    records = "select count(*) from training.employee_training_video_completions where completed_at is null"
    before = only(db, records)
    organization = only(db, "select id from training.organizations order by created_at limit 1")
    run = "select run_id from backfill.batches where asset ~ '^training/' and rows_inserted > 0 limit 1"
    values = {
        "org_1": organization, "ORG": organization, "RUN_OR_BACKFILL": lambda _: only(db, run)
    }  # fmt: skip
    done = follow(DOCS + "training-completions.md", checkout, project_root, values)
    assert ", 0 need a backfill." in done["backfills run training_completions"].printed.splitlines()[-2]
    assert "records removed" in one(done, "rollback", "--execute").printed
    assert only(db, records) == before


def test_the_progress_runbook_works(checkout: Checkout, db: psycopg.Connection, project_root: Path) -> None:
    stuck = psycopg.connect(checkout.database_url)
    stuck.execute("select now()")
    values = {
        "COHORT": COHORT, "COHORT_ID": COHORT, "USER_ID": only(db, STUDENT), "PID": str(stuck.info.backend_pid)
    }  # fmt: skip
    done = follow(DOCS + "progress-stats.md", checkout, project_root, values)
    cohorts, needed, stale_since = one(done, "from progress.cohort_status").rows[0]
    assert (cohorts, needed > 0, stale_since is not None) == (40, True, True)
    rows = one(done, "is_mastered").rows
    assert rows and all(counts for _, _, counts, *_ in rows)
    assert "Northgate College" in one(done, "Northgate").printed
    with pytest.raises(psycopg.OperationalError):
        stuck.execute("select now()")
    assert "progress_stats: 40 partitions, 0 need a backfill." in one(done, "--which all").printed
    query = one(done, "tgenabled")
    assert query.rows == []
    with psycopg.connect(checkout.database_url) as conn, suppress(psycopg.Rollback), conn.transaction():
        conn.execute("alter table progress.user_progress disable trigger sources_changed_insert")
        off = conn.execute(query.what).fetchall()  # type: ignore[call-overload]
        assert off == [("user_progress", "sources_changed_insert")]
        raise psycopg.Rollback


def test_the_scoring_runbook_works(checkout: Checkout, db: psycopg.Connection, project_root: Path) -> None:
    day = newest_day(datetime.now(UTC).date()).isoformat()
    scored = "select min(member_id) from scoring.commitment_scores"
    values = {
        "2026-06-30": day, "GYM": "gym_001", "MEMBER": lambda _: only(db, scored),
        "day < …": f"day < '{day}'",
    }  # fmt: skip
    # Exit code 1, because two members can't be scored.
    ends = {
        "backfills run scoring -p 2026-06-30": 1, "backfills run scoring --which failed": 1,
        "backfills scoring gym GYM --date 2026-06-30": None,
    }  # fmt: skip
    done = follow(DOCS + "daily-scoring.md", checkout, project_root, values, ends=ends)
    assert "mem_000001" in done["backfills failures scoring"].printed
    assert day in done["backfills status scoring"].printed
    assert only(db, "select count(distinct day) from scoring.commitment_scores") == 1


def test_the_background_jobs_runbook_works(
    checkout: Checkout, db: psycopg.Connection, project_root: Path
) -> None:
    waiting = "select id::text from jobs.background_jobs where status = 'pending' order by id limit 1"

    def failed(_: str) -> str:
        found = db.execute("select id, attempt from jobs.claim_jobs('worker', 1)").fetchone()
        assert found
        db.execute("select jobs.fail_job(%s, %s, 'error', 'no such file', null, false)", found)
        return str(found[0])

    values = {
        "TYPE": "mux_upload",
        "ID": lambda snippet: failed(snippet) if "retry" in snippet else only(db, waiting),
    }
    variables = {"QUEUE_HANDLERS": "my_company.jobs", "PYTHONPATH": str(checkout.folder)}
    place = Checkout(checkout.folder, checkout.database_url, {**checkout.variables, **variables})
    done = follow(DOCS + "background-jobs.md", place, project_root, values)
    asked = (
        "select unique_key, priority, jsonb_array_length(then_steps) from jobs.background_jobs"
        " where unique_key is not null"
    )
    assert db.execute(asked).fetchall() == [("training-17", 2, 2)]
    assert (
        done['backfills queue cancel ID --reason "wrong file"'].printed.rstrip().endswith("(it was pending).")
    )
    assert "1 jobs queued again." in done["backfills queue retry ID"].printed
    assert "make_invoice" in done["backfills queue types"].printed
    assert only(db, "select count(*) from jobs.job_types where job_type = 'make_invoice'") == 1
    assert only(db, "select lease = '2 minutes' from jobs.queue_settings") is True


def test_the_import_runbook_works(checkout: Checkout, db: psycopg.Connection, project_root: Path) -> None:
    def registered(name: str, status: str) -> str:
        """Registers a job for another file, as after its worker was killed, or before it had one."""
        file = write_csv(checkout.folder / f"{name}.csv", [row(len(name), **USERS)])
        job = register(db, str(file), [str(checkout.folder)]).job
        db.execute(
            "update kintell.backfill_jobs set status = %(status)s,"
            " activity = case when %(status)s = 'running' then 'import' end"
            " where id = %(job)s and status <> %(status)s",
            {"status": status, "job": job},
        )
        return str(job)

    jobs: dict[str, Callable[[], str]] = {
        "resume JOB --max": lambda: registered("acceptable", "pending"),
        "resume": lambda: registered("crashed", "running"),
        "pause": lambda: registered("working", "running"),
        "cancel": lambda: registered("wrong", "pending"),
        "rollback JOB --execute": lambda: "wrong.csv",
    }

    def job(snippet: str) -> str:
        of = next((value for verb, value in jobs.items() if verb in snippet), lambda: "sessions.csv")
        return of()

    done = follow(
        DOCS + "kintell-import.md", checkout, project_root, {"JOB": job, "FILE": "sessions.csv"},
        ends={
            "backfills kintell validate FILE": 1, "backfills kintell missing-users FILE": None,
            "backfills kintell start FILE --max-error-ratio 0.05": 1, "backfills kintell start rejected.xlsx": 1,
            "backfills kintell replay JOB": None, "backfills doctor": None,
        },
    )  # fmt: skip
    assert (checkout.folder / "rejected.xlsx").stat().st_size > 0
    statuses = "select file_name, status from kintell.backfill_jobs order by file_name"
    assert dict(db.execute(statuses).fetchall()) == {
        "acceptable.csv": "completed", "crashed.csv": "completed", "rejected.xlsx": "completed",
        "sessions.csv": "completed", "working.csv": "paused", "wrong.csv": "rolled_back",
    }  # fmt: skip
    assert done


def test_the_page_on_plan_and_undo_works(
    checkout: Checkout, db: psycopg.Connection, project_root: Path
) -> None:
    db.execute("delete from progress.cohort_stats")
    checkout.run("backfills", "run", "progress_stats")
    run = "select run_id from backfill.batches where asset ~ '^progress/' order by committed_at desc limit 1"
    values = {
        "cohort_17": COHORT, "user_4711": only(db, STUDENT), "4f1c2d3e": lambda _: only(db, run)[:8],
    }  # fmt: skip
    done = follow("docs/how-to/plan-and-undo.md", checkout, project_root, values, inline=False)
    assert "nothing was changed." in done["backfills undo progress_stats"].printed
    # The run was undone; then the undo was undone for one cohort.
    assert only(db, "select count(*) < 40 from progress.cohort_stats") is True
    assert only(db, "select count(*) from progress.cohort_stats where cohort_id = %s", COHORT) == 1


def test_the_page_on_monitoring_works(checkout: Checkout, project_root: Path) -> None:
    checkout.run("backfills", "run", "progress_stats")
    values = {"NAME": "progress_stats", "TEXT": "coh"}
    done = follow("docs/how-to/see.md", checkout, project_root, values, inline=False)
    assert "progress_stats" in done["backfills list"].printed
    assert len(one(done, "backfill_days").rows) > 0
