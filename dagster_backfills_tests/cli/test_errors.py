"""Connection and server errors: one clear message with a hint, no traceback, no password."""

import logging
import socket

import psycopg
import psycopg2
import pytest
import sqlalchemy

from dagster_backfills.cli.errors import (
    FAILURES,
    NOT_USABLE,
    UNEXPECTED,
    USAGE,
    LogLines,
    explain,
    redact,
    report,
)
from dagster_backfills.errors import NotUsableError, UserError
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills_tests.cli.conftest import Cli, user_of, with_database


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def message(cli: Cli, url: str, *arguments: str) -> str:
    done = cli("migrate", *arguments, env={"DATABASE_URL": url})
    assert done.returncode == NOT_USABLE
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_an_unreachable_server_is_named_with_host_port_and_a_hint(cli: Cli):
    port = closed_port()
    output = message(cli, f"postgresql://me:secret@127.0.0.1:{port}/db")
    assert f"server at 127.0.0.1:{port} does not answer: connection refused." in output
    assert "unset DATABASE_URL" in output
    assert "secret" not in output


def test_a_host_that_does_not_exist_is_named(cli: Cli):
    output = message(cli, "postgresql://me:secret@nowhere.invalid/db")
    assert "server at nowhere.invalid does not answer" in output


def test_a_missing_socket_is_named(cli: Cli, tmp_path):
    assert f"server at {tmp_path}:5432 does not answer: no such file" in message(
        cli, f"postgresql:///db?host={tmp_path}"
    )


def test_a_missing_database_is_named(cli: Cli, database_url: str):
    output = message(cli, with_database(database_url, "nothing_here"))
    assert "has no database 'nothing_here'." in output


def test_a_missing_role_is_named(cli: Cli, database_url: str):
    assert "has no role 'no_one'" in message(cli, user_of(database_url, "no_one"))


def test_a_wrong_password_is_said_to_be_wrong_and_never_shown(cli: Cli, tmp_path):
    server = EmbeddedServer(tmp_path)
    try:
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as conn:
            conn.execute("create role careful login password 'right'")
            rules = server.data / "pg_hba.conf"
            rules.write_text(f"local all careful scram-sha-256\n{rules.read_text()}")
            conn.execute("select pg_reload_conf()")
        url = user_of(server.url(), "careful", "wr0ng&pass")
        assert "rejected the password of 'careful'. Check DATABASE_URL." in message(cli, url)
        done = cli("--debug", "migrate", env={"DATABASE_URL": url})
        assert "Traceback" in done.stderr
        assert "wr0ng" not in done.stderr
    finally:
        server.delete()


def test_an_invalid_url_is_not_repeated(cli: Cli):
    output = message(cli, "postgresql:/me:secret@host/db")
    assert output.startswith("backfills: DATABASE_URL is not a connection URL.")
    assert "secret" not in output


def test_a_read_only_database_says_so(cli: Cli, make_database):
    url = make_database(migrated=False)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"alter database {conn.info.dbname} set default_transaction_read_only = on")
    output = message(cli, url)
    assert "read-only transaction (25006)" in output
    assert "Point DATABASE_URL at the primary." in output


def test_a_missing_privilege_is_reported(cli: Cli, make_database):
    url = make_database(migrated=False)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create role may_only_look login")
        try:
            output = message(cli, user_of(url, "may_only_look"))
        finally:
            conn.execute("drop role may_only_look")
    assert "permission denied for database" in output and "sql/roles.sql" in output


def test_a_missing_table_hints_at_the_migrations(make_database):
    url = make_database(migrated=False)
    with psycopg.connect(url) as conn, pytest.raises(psycopg.Error) as raised:
        conn.execute("select * from progress.cohort_stats")
    code, output, hint = explain(raised.value)
    assert (code, hint) == (NOT_USABLE, "Run: backfills migrate")
    assert 'relation "progress.cohort_stats" does not exist' in output


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_drivers_error_is_found_in_the_chain_of_causes(driver):
    engine = sqlalchemy.create_engine(f"postgresql+{driver}://me:secret@127.0.0.1:{closed_port()}/db")
    with pytest.raises(RuntimeError) as raised:
        try:
            engine.connect()
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise RuntimeError("something in between") from error
    code, output, _ = explain(raised.value)
    assert code == NOT_USABLE
    assert "connection refused" in output


def test_errors_of_psycopg2_are_explained_too(database_url):
    with pytest.raises(psycopg2.Error) as raised:
        psycopg2.connect(with_database(database_url, "nothing_here"))
    assert "has no database 'nothing_here'" in explain(raised.value)[1]


def test_an_invalid_request_is_not_reported_as_a_server_error():
    assert explain(UserError("No cohort x.", "See: backfills status progress_stats x")) == (
        USAGE,
        "No cohort x.",
        "See: backfills status progress_stats x",
    )
    assert explain(NotUsableError("No disk."))[0] == NOT_USABLE
    assert explain(PermissionError(13, "Permission denied", "/a/file")) == (
        NOT_USABLE,
        "/a/file: Permission denied.",
        "",
    )
    assert explain(ZeroDivisionError("division by zero"))[0] == UNEXPECTED
    assert len({FAILURES, USAGE, NOT_USABLE, UNEXPECTED}) == 4


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:s3cret@host:5432/db?x=1",
        "postgresql+psycopg://me:s3cret@/db?host=/tmp",
        "postgresql://me:s3cret%40x@host, then postgresql://you:s3cret@there",
        "postgresql://me:pa/s3cret@host/db",
        "host=h user=u password=s3cret dbname=d",
        "host=h password='s3cret with blank' dbname=d",
        "postgresql://host/db?user=me&password=s3cret&sslmode=require",
    ],
)
def test_no_form_of_a_password_is_shown(text: str):
    shown = redact(text)
    assert "s3cret" not in shown
    assert "***" in shown
    assert redact("Nothing at 12:30 for a@b.c to hide") == "Nothing at 12:30 for a@b.c to hide"


def test_what_a_library_logs_again_and_again_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("a library")
    log.addHandler(LogLines())
    for reason in ("refused", "refused", "starting up"):
        log.warning("Retrying postgresql://me:secret@host/db: %s\n\tIs the server running?", reason)
    log.info("Nothing to see.")
    assert capsys.readouterr().err.splitlines() == [
        f"backfills: Retrying postgresql://me:***@host/db: {reason}" for reason in ("refused", "starting up")
    ]


def test_a_role_that_may_not_use_dagsters_schema_is_told_which_schema_that_is(make_database):
    url = make_database(migrated=False)
    with psycopg.connect(url) as conn, pytest.raises(psycopg.Error) as raised:
        conn.execute("set search_path = dagster; create table runs ()")
    _, message, hint = explain(raised.value)
    assert "3F000" in message and "may not use the schema `dagster`" in hint


def test_a_message_and_its_hint_are_two_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    for message in ("empty.csv is empty", "empty.csv is empty."):
        assert report(UserError(message, "It needs a header row.")) == USAGE
    line = "backfills: empty.csv is empty. It needs a header row."
    assert capsys.readouterr().err.splitlines() == [line, line]
