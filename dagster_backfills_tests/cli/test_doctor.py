"""`backfills doctor`: each problem is reported with a hint, and none hides another."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from dagster_backfills.cli import doctor, doctor_machine, doctor_postgres
from dagster_backfills.cli.doctor import examine
from dagster_backfills.cli.finding import Finding, Level, findings_of
from dagster_backfills.cli.instance import InstanceState, Tick
from dagster_backfills.instance.dagster_home import dagster_environment
from dagster_backfills.postgres.embedded import EmbeddedServer
from dagster_backfills.postgres.migrations import migrations_dir
from dagster_backfills_tests.cli.conftest import Cli, user_of, with_database
from dagster_backfills_tests.domains.kintell.test_outbox import Nats, needs_nats

Patch = pytest.MonkeyPatch


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def of(findings: list[Finding], check: str) -> Finding:
    (finding,) = [each for each in findings if each.check == check]
    return finding


def only(findings: list[Finding] | object) -> tuple[str, str, str]:
    (finding,) = list(findings)  # type: ignore[call-overload]
    return finding.level.value, finding.found, finding.advice


def test_a_migrated_database_without_a_daemon_has_only_that_warning(cli: Cli):
    done = cli("doctor", "--json")
    assert done.returncode == 0, done.stdout
    answer = json.loads(done.stdout)
    levels = {each["check"]: each["level"] for each in answer["findings"]}
    assert answer["ok"]
    assert [check for check, level in levels.items() if level != "ok"] == ["daemon"]
    assert {
        "python", "dagster version", "state folder", "dagster home", "postgres", "session", "migrations",
        "row security", "connections", "clock", "nats", "inbox", "notifications",
    } <= set(levels)  # fmt: skip


def test_the_doctor_creates_nothing(conn: psycopg.Connection, database_url: str, monkeypatch: Patch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    before = conn.execute("select count(*) from pg_class").fetchone()
    assert of(examine(), "daemon").level is Level.WARNING
    assert conn.execute("select count(*) from pg_class").fetchone() == before


def test_an_unreachable_server_is_one_finding_and_the_other_checks_still_run(cli: Cli):
    url = f"postgresql://me:hidden@127.0.0.1:{closed_port()}/db"
    done = cli("doctor", env={"DATABASE_URL": url, "KINTELL_INBOX": "/nonexistent/inbox"})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert "hidden" not in done.stderr + done.stdout
    lines = {line.split("\t")[1]: line.split("\t") for line in done.stdout.splitlines()}
    assert lines["postgres"][0] == "error"
    assert "does not answer: connection refused" in lines["postgres"][2]
    assert lines["python"][0] == "ok"
    assert lines["inbox"][0] == "error"
    assert "migrations" not in lines
    assert done.stderr == "2 errors, 1 warning.\n"


def test_a_wrong_password_is_reported_but_not_shown(cli: Cli, tmp_path: Path):
    server = EmbeddedServer(tmp_path)
    try:
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as conn:
            conn.execute("create role careful login password 'right'")
            rules = conn.execute("show hba_file").fetchone()
            assert rules is not None
            text = Path(rules[0]).read_text()
            Path(rules[0]).write_text(f"local all careful scram-sha-256\n{text}")
            conn.execute("select pg_reload_conf()")
        done = cli("doctor", env={"DATABASE_URL": user_of(server.url(), "careful", "mistaken")})
    finally:
        server.delete()
    assert done.returncode == 1
    assert "rejected the password of 'careful'" in done.stdout
    assert "mistaken" not in done.stdout + done.stderr


def test_an_embedded_server_that_is_not_running_is_not_started(tmp_path: Path, monkeypatch: Patch):
    monkeypatch.setenv("BACKFILLS_HOME", str(tmp_path))
    found = of(examine(), "postgres")
    assert (found.level, found.advice) == (Level.ERROR, "Start it: backfills up. Or set DATABASE_URL.")
    assert "has not been created yet" in found.found
    assert list(tmp_path.iterdir()) == []


def test_a_missing_database_is_named(database_url: str):
    (finding,) = doctor_postgres.examine(with_database(database_url, "nothing_here"))
    assert finding.level is Level.ERROR
    assert "has no database 'nothing_here'" in finding.found


def test_pending_migrations_are_an_error(make_database: Callable[..., str]):
    findings = doctor_postgres.examine(make_database(migrated=False))
    assert of(findings, "migrations") == Finding(
        "migrations",
        Level.ERROR,
        f"Pending: 0001_backfill and {len(list(migrations_dir().rglob('*.sql'))) - 1} more.",
        "Run: backfills migrate",
    )
    assert of(findings, "connections").level is Level.OK


def test_tables_that_hide_rows_from_the_role_are_named(conn: psycopg.Connection, database_url: str):
    assert of(doctor_postgres.examine(database_url), "row security").level is Level.OK
    conn.execute("alter table progress.users enable row level security")
    conn.execute("alter table scoring.visits enable row level security")
    assert (
        of(doctor_postgres.examine(database_url), "row security").level is Level.OK
    )  # a superuser sees all rows
    conn.execute("create role sees_less login; grant usage on schema backfill to sees_less")
    conn.execute("grant select on backfill.schema_migrations to sees_less")
    try:
        found = of(doctor_postgres.examine(user_of(database_url, "sees_less")), "row security")
        assert found.level is Level.ERROR
        assert found.found == "Row-level security hides rows from sees_less: progress.users, scoring.visits."
        assert 'alter role "sees_less" bypassrls' in found.advice
        conn.execute('alter role "sees_less" bypassrls')
        assert (
            of(doctor_postgres.examine(user_of(database_url, "sees_less")), "row security").level is Level.OK
        )
    finally:
        conn.execute("drop owned by sees_less; drop role sees_less")


def test_a_changed_migration_and_disabled_triggers_are_errors(conn: psycopg.Connection, database_url: str):
    conn.execute("update backfill.schema_migrations set digest = '' where migration_id = '0001_backfill'")
    conn.execute(f'alter database "{conn.info.dbname}" set session_replication_role = replica')
    findings = doctor_postgres.examine(database_url)
    assert of(findings, "migrations").found == "0001_backfill was changed after it was applied."
    assert of(findings, "session").level is Level.ERROR


SERVER = {"version": 160002, "version_name": "16.2", "in_recovery": False, "read_only": False, "bytes": 1}


@pytest.mark.parametrize(
    ("change", "level", "message"),
    [
        ({}, "ok", "PostgreSQL 16.2, database d"),
        ({"version": 140010}, "error", "is too old"),
        ({"version": 190000}, "warning", "is newer than the tested versions"),
        ({"in_recovery": True}, "error", "is a standby"),
        ({"read_only": True}, "error", "is set to read only"),
    ],
)
def test_an_unsupported_or_read_only_server_is_reported(change: dict, level: str, message: str):
    found = only(doctor_postgres.server(SERVER | {"database": "d"} | change))
    assert found[0] == level
    assert message in found[1]


@pytest.mark.parametrize(("available", "level"), [(97, "ok"), (20, "warning")])
def test_too_few_connections_are_a_warning(available: int, level: str):
    assert only(doctor_postgres.connections(available))[0] == level


def test_clock_skew_is_a_warning_but_a_slow_query_is_not():
    assert doctor_postgres.clocks(100.0, 99.0, 101.0).level is Level.OK
    assert doctor_postgres.clocks(110.0, 99.0, 101.0).found == (
        "The database's clock is 10.0 s ahead of this machine's."
    )
    assert doctor_postgres.clocks(90.0, 99.0, 101.0).level is Level.WARNING
    assert doctor_postgres.clocks(105.0, 90.0, 110.0).level is Level.OK


def test_an_invalid_dagster_home_is_an_error(tmp_path: Path, monkeypatch: Patch):
    def found(home: str) -> tuple[str, str, str]:
        monkeypatch.setenv("DAGSTER_HOME", home)
        return only(doctor_machine.dagster_home())

    assert found("relative")[:2] == ("error", "DAGSTER_HOME is 'relative', which is not an absolute path.")
    assert found(str(tmp_path / "gone"))[0] == "error"
    assert "has no dagster.yaml" in found(str(tmp_path))[1]
    (tmp_path / "dagster.yaml").touch()
    assert found(str(tmp_path))[0] == "ok"
    assert found("")[0] == "ok"


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path: Path, monkeypatch: Patch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root can write everywhere
    assert only(doctor_machine.folder("state folder", tmp_path, "BACKFILLS_HOME"))[0] == "error"


@pytest.mark.parametrize(("free", "level"), [(2**27, "error"), (2**30, "warning"), (2**36, "ok")])
def test_low_disk_space_is_reported(free: int, level: str, tmp_path: Path, monkeypatch: Patch):
    usage = type("Usage", (), {"free": free, "total": 2**37})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert doctor_machine.disk("data folder", tmp_path, tmp_path).level.value == level


def test_a_python_that_is_too_new_is_an_error(monkeypatch: Patch):
    assert only(doctor_machine.python())[0] == "ok"
    monkeypatch.setattr("sys.version_info", (3, 14, 0))
    assert only(doctor_machine.python())[0] == "error"


def test_the_state_of_the_daemon_is_reported(database_with_dagster: str, monkeypatch: Patch):
    import dagster as dg
    from dagster._daemon.types import DaemonHeartbeat

    database_url = database_with_dagster
    monkeypatch.setenv("DATABASE_URL", database_url)
    for name, value in dagster_environment().items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        assert of(list(doctor.of_dagster(database_url)), "daemon").level is Level.WARNING
        instance.add_daemon_heartbeat(DaemonHeartbeat(1.0, "SENSOR", "me"))
        silent = of(list(doctor.of_dagster(database_url)), "daemon")
        assert (silent.level, "nothing ticks" in silent.found) == (Level.ERROR, True)
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "me"))
        findings = list(doctor.of_dagster(database_url))
    assert of(findings, "daemon").level is Level.OK
    assert of(findings, "ticks").level is Level.OK


def test_an_unreachable_dagster_storage_is_one_error_after_one_attempt(
    database_url: str, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", f"postgresql://me:hidden@127.0.0.1:{closed_port()}/db")
    (finding,) = doctor.of_dagster(database_url)
    assert finding.level is Level.ERROR
    assert "127.0.0.1" in finding.found
    assert "hidden" not in finding.found
    assert caplog.text == ""  # Dagster would log each of five attempts


def test_ticks_that_fail_or_are_off_are_named():
    ticks = [
        Tick("a", "sensor", True, "30 s", None, None, "failure", "no_service"),
        Tick("b", "schedule", False, "0 2 * * *", None, None, "success", ""),
        Tick("c", "sensor", True, "30 s", None, None, "skipped", "nothing to do"),
    ]
    found = list(doctor.ticks(ticks))
    assert [each.found for each in found] == ["The last tick of a failed: no_service", "Turned off: b."]
    assert doctor.daemon(InstanceState(daemon_seconds=3)).level is Level.OK


def test_a_daemon_that_waits_after_the_clock_was_set_back_is_an_error():
    finding = doctor.daemon(InstanceState(daemon_seconds=-86_400))
    assert finding.level is Level.ERROR
    assert "set back by" in finding.found
    assert "Restart dagster-daemon" in finding.advice


def test_an_unreachable_nats_is_an_error(monkeypatch: Patch):
    url = f"nats://me:hidden@127.0.0.1:{closed_port()}"
    monkeypatch.setenv("KINTELL_NATS_URL", url)
    level, found, advice = only(doctor_machine.nats())
    assert (level, "stay in the outbox" in advice) == ("error", True)
    assert "hidden" not in found


@pytest.mark.programs
@needs_nats
def test_a_working_nats_is_ok(tmp_path: Path, monkeypatch: Patch):
    server = Nats(tmp_path)
    server.start()
    try:
        monkeypatch.setenv("KINTELL_NATS_URL", server.url)
        assert only(doctor_machine.nats())[:2] == ("ok", f"{server.url}: JetStream with 0 streams")
    finally:
        server.stop()


def test_a_nats_that_does_not_respond_times_out(monkeypatch: Patch):
    monkeypatch.setattr(doctor_machine, "_NATS_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("KINTELL_NATS_URL", f"nats://127.0.0.1:{silent.getsockname()[1]}")
        assert only(doctor_machine.nats())[0] == "error"


def test_files_in_the_inbox_are_counted_and_a_missing_inbox_is_an_error(tmp_path: Path, monkeypatch: Patch):
    monkeypatch.setenv("KINTELL_INBOX", str(tmp_path))
    (tmp_path / "a.csv").touch()
    assert only(findings_of(doctor_machine.inbox))[:2] == ("ok", f"{tmp_path}: 1 files")
    monkeypatch.setenv("KINTELL_INBOX", str(tmp_path / "gone"))
    assert only(findings_of(doctor_machine.inbox))[0] == "error"
    monkeypatch.setenv("KINTELL_INBOX", "nosuch://bucket")
    assert only(findings_of(doctor_machine.inbox))[0] == "error"


def test_half_configured_notifications_are_an_error(monkeypatch: Patch):
    assert only(findings_of(doctor_machine.notifications))[:2] == ("ok", "Failures are not sent to anyone.")
    monkeypatch.setenv("NOTIFY_SLACK_WEBHOOK_URL", "https://hooks.example.test/x")
    assert only(findings_of(doctor_machine.notifications))[1] == "Failures are sent by slack."
    monkeypatch.setenv("NOTIFY_EMAIL_TO", "a@b.test")
    assert only(findings_of(doctor_machine.notifications))[0] == "error"


def test_a_check_that_breaks_is_a_finding_and_shows_no_password():
    def broken_check() -> list[Finding]:
        raise RuntimeError("postgresql://me:hidden@host/db")

    (finding,) = findings_of(broken_check)
    assert (finding.check, finding.level) == ("broken check", Level.ERROR)
    assert "hidden" not in finding.found
