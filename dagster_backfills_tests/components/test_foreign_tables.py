"""Sources in another database through `postgres_fdw`: read like any other, followed by a `due` statement."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from dagster_backfills.engine.triggers import apply
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.migrations import apply_migrations
from dagster_backfills.postgres.placement import choose_account
from dagster_backfills_tests.components.adopting import EXAMPLES, adopter, copied, load, query
from dagster_backfills_tests.components.applications import GYM, MONTHS
from dagster_backfills_tests.components.test_promises import ANN, CID, VISITS
from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.dagster.storing import failure_description, versions
from dagster_backfills_tests.e2e.graphql import wait_for

pytestmark = pytest.mark.programs

DUE = """
-- name: gyms_that_differ
select g.id from public.gyms as g
where exists (
    (
        select m.id, date_trunc('month', a.activity_date)::date, count(*)
        from public.members as m inner join public.member_activities as a on m.id = a.member_id
        where m.gym_id = g.id group by 1, 2
    )
    except
    select t.member_id, t.month, t.visits from attendance.member_months as t where t.gym_id = g.id
);
"""
WATCHED = "stale_when: {public.members: gym_id, public.member_activities: gyms_of_activities}"


PROGRAMS = sorted(
    Path("/usr/lib/postgresql").glob("*/bin")
)  # Debian's programs, which have the extensions that the embedded server lacks


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The maintenance database of a server with postgres_fdw: `TEST_DATABASE_URL`'s, or one of Debian's programs."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    if not PROGRAMS:
        pytest.skip("no Postgres of Debian's is installed; TEST_DATABASE_URL may name a server")
    home = Path(tempfile.mkdtemp(prefix="fdw-"))
    account = choose_account(home / "data")
    account.own(home)
    data, run = home / "data", {"cwd": home, "check": True, "capture_output": True}
    initdb = [
        PROGRAMS[-1] / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "--auth=trust",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run(initdb, **run, **account.subprocess_options)
    command = [
        PROGRAMS[-1] / "postgres",
        "-D",
        data,
        "-k",
        home,
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
    ]
    postgres = subprocess.Popen(
        command, cwd=home, stderr=subprocess.DEVNULL, **account.subprocess_options, preexec_fn=_end_with_us
    )
    try:
        url = f"postgresql://postgres@/postgres?host={home}"
        wait_for("the server", lambda: _answers(url), 60)
        yield url
    finally:
        postgres.send_signal(signal.SIGQUIT)
        postgres.wait(60)
        shutil.rmtree(home)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _end_with_us() -> None:
    """Stops the server with the test process, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


@pytest.fixture
def database_url(server: str) -> Iterator[str]:
    with new_database(server, "template1") as url:
        apply_migrations(url)
        yield url


@pytest.fixture
def application(conn: psycopg.Connection, server: str) -> Iterator[psycopg.Connection]:
    """The gym's own database, whose tables are foreign tables in the test's database."""
    with new_database(server, "template1") as url, psycopg.connect(url, autocommit=True) as theirs:
        theirs.execute(GYM)
        host, port = (query(theirs, f"select current_setting('{name}')")[0] for name in _WHERE)
        conn.execute("create extension postgres_fdw")
        options = sql.SQL(
            "create server app foreign data wrapper postgres_fdw options (host {}, port {}, dbname {})"
        )
        parts = (host.split(",")[0], port, theirs.info.dbname)
        conn.execute(options.format(*(sql.Literal(part) for part in parts)))
        conn.execute("create user mapping for current_user server app")
        conn.execute(
            "import foreign schema public limit to (gyms, members, member_activities) from server app into public"
        )
        conn.execute(MONTHS)
        yield theirs


_WHERE = ("unix_socket_directories", "port")


def test_foreign_tables_are_read_and_followed_by_a_due_statement(
    application: psycopg.Connection, conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    folder = copied(tmp_path, "member_months", (WATCHED, "due: gyms_that_differ"))
    (folder / "queries.sql").write_text((folder / "queries.sql").read_text() + DUE)
    with adopter(load(folder), database_url) as a:
        assert a.settle() == 1
        assert query(conn, VISITS) == [(ANN, "2026-01-01", 2), (ANN, "2026-02-01", 1), (CID, "2026-01-01", 1)]
        before = versions(conn, "attendance.member_months")
        assert a.settle() == 0
        a.refresh("all")
        assert versions(conn, "attendance.member_months") == before
        application.execute(
            "insert into public.member_activities (member_id, activity_date, activity_type)"
            " values (%s, '2026-01-09', 'visit')",
            [CID],
        )
        assert a.settle() == 1
        assert (CID, "2026-01-01", 2) in query(conn, VISITS)


def test_polling_or_triggers_on_a_foreign_table_give_an_error_with_a_hint(
    application: psycopg.Connection, conn: psycopg.Connection, database_url: str
) -> None:
    with adopter(load(EXAMPLES / "member_months", stale_by="polling"), database_url) as a:
        result = a.refresh("all", expect=False)
        assert "a foreign table can't be detected. Declare a statement with `due`" in failure_description(
            result
        )
        with pytest.raises(UserError, match=r"The triggers on public\.members can't be created") as raised:
            apply(conn, a.triggers())
    assert "`due`" in raised.value.hint
    assert query(conn, "select count(*) from attendance.member_months") == [0]
