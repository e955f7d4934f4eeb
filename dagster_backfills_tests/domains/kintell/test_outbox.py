"""Publishing events to a real nats-server."""

import asyncio
import json
import shutil
import socket
import subprocess
import time

import psycopg
import pytest

from dagster_backfills.domains.kintell.after.rollback import roll_back
from dagster_backfills.domains.kintell.events import outbox
from dagster_backfills.domains.kintell.events.outbox import NatsUnavailable, next_events, publish_waiting
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import add_users, row, write_csv

PROGRAM = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")
needs_nats = pytest.mark.skipif(PROGRAM is None, reason="nats-server is not installed")
STREAM = "KINTELL"


class Nats:
    """A JetStream server on loopback that can be stopped and started with what it has stored."""

    def __init__(self, store):
        self.store = store
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [PROGRAM, "-js", "-sd", str(self.store), "-a", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("nats-server did not start")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(timeout=10)
            self.process = None

    def stored(self):
        """(subject, message id, payload) of all messages, in the stream's order."""

        async def read():
            import nats

            connection = await nats.connect(self.url)
            jetstream = connection.jetstream()
            count = (await jetstream.stream_info(STREAM)).state.messages
            subscription = await jetstream.subscribe("kintell.session.>", ordered_consumer=True)
            messages = [await subscription.next_msg(timeout=5) for _ in range(count)]
            await connection.close()
            return [(m.subject, m.headers["Nats-Msg-Id"], json.loads(m.data)) for m in messages]

        return asyncio.run(read())


@pytest.fixture
def nats_server(tmp_path):
    server = Nats(tmp_path / "jetstream")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def imported(conn, database_url, tmp_path):
    add_users(conn)

    def run(rows, name="a.csv"):
        job = register(conn, str(write_csv(tmp_path / name, rows)), [str(tmp_path)]).job
        return run_import(database_url, job, Options(batch_rows=100), [str(tmp_path)])

    return run


def waiting(conn):
    return conn.execute("select count(*) from kintell.event_outbox where published_at is null").fetchone()[0]


@needs_nats
def test_events_are_stored_once_and_in_the_files_order(imported, conn, database_url, nats_server):
    imported([row(i) for i in range(2500)])
    assert publish_waiting(database_url, nats_server.url, STREAM).events == 2500
    assert waiting(conn) == 0
    stored = nats_server.stored()
    assert [m[2]["externalSessionId"] for m in stored] == [f"s-{i:06d}" for i in range(2500)]
    assert all(subject == f"kintell.session.completed.{i}" and i == data["id"] for subject, i, data in stored)
    assert set(stored[0][2]) == {
        "id", "time", "sessionId", "externalSessionId", "sessionType", "participantId", "volunteerId",
        "scheduledAt", "completedAt", "durationMinutes", "languageLevel",
    }  # fmt: skip


@needs_nats
def test_an_event_published_again_is_stored_once_even_past_the_duplicate_window(
    imported, conn, database_url, nats_server
):
    async def stream_with_a_tiny_window():
        import nats
        from nats.js.api import StreamConfig

        connection = await nats.connect(nats_server.url)
        await connection.jetstream().add_stream(
            StreamConfig(name=STREAM, subjects=["kintell.session.>"], duplicate_window=0.1)
        )
        await connection.close()

    asyncio.run(stream_with_a_tiny_window())
    imported([row(i) for i in range(50)])
    publish_waiting(database_url, nats_server.url, STREAM)
    before = nats_server.stored()
    conn.execute("update kintell.event_outbox set published_at = null")
    again = publish_waiting(database_url, nats_server.url, STREAM)
    assert (again.events, again.already_stored) == (50, 50)
    time.sleep(0.5)
    conn.execute("update kintell.event_outbox set published_at = null")
    again = publish_waiting(database_url, nats_server.url, STREAM)
    assert (again.events, again.already_stored) == (50, 50)
    assert nats_server.stored() == before


@needs_nats
def test_events_wait_while_nats_is_unreachable(imported, conn, database_url, nats_server):
    nats_server.stop()
    assert imported([row(i) for i in range(300)]).status == "completed"
    with pytest.raises(NatsUnavailable, match="does not answer"):
        publish_waiting(database_url, nats_server.url, STREAM)
    assert waiting(conn) == 300
    nats_server.start()
    assert publish_waiting(database_url, nats_server.url, STREAM).events == 300
    assert len(nats_server.stored()) == 300


@needs_nats
def test_no_event_is_lost_or_duplicated_when_nats_dies(
    imported, conn, database_url, nats_server, monkeypatch
):
    monkeypatch.setattr(outbox, "ACK_SECONDS", 4.0)  # for answers that never come
    imported([row(i) for i in range(3000)])

    def take_and_die(connection, most):
        events = next_events(connection, most)
        if waiting(conn) == 2000:
            nats_server.process.kill()
        return events

    with monkeypatch.context() as patched, pytest.raises(NatsUnavailable):
        patched.setattr(outbox, "next_events", take_and_die)
        publish_waiting(database_url, nats_server.url, STREAM)
    nats_server.process.wait()
    nats_server.start()
    publish_waiting(database_url, nats_server.url, STREAM)
    ids = [m[2]["externalSessionId"] for m in nats_server.stored()]
    assert ids == [f"s-{i:06d}" for i in range(3000)]


@needs_nats
def test_a_rollback_publishes_an_event_for_each_published_one(
    imported, conn, database_url, nats_server, monkeypatch
):
    job = imported([row(i) for i in range(20)])
    with monkeypatch.context() as patched:
        patched.setattr(
            outbox, "next_events", lambda conn, _: next_events(conn, 8) if waiting(conn) == 20 else []
        )
        publish_waiting(database_url, nats_server.url, STREAM)
    assert waiting(conn) == 12
    roll_back(database_url, job.id)
    publish_waiting(database_url, nats_server.url, STREAM)
    kinds = [
        (subject.rsplit(".", 1)[0], data["externalSessionId"]) for subject, _, data in nats_server.stored()
    ]
    first = [f"s-{i:06d}" for i in range(8)]
    assert kinds == [("kintell.session.completed", i) for i in first] + [
        ("kintell.session.rolled_back", i) for i in first
    ]


def test_a_rollback_does_not_delete_events_that_are_being_sent(imported, conn, database_url):
    job = imported([row(i) for i in range(6)])
    assert len(next_events(conn, 2)) == 2
    roll_back(database_url, job.id)
    left = conn.execute(
        "select event_type, count(*) from kintell.event_outbox group by 1 order by 1"
    ).fetchall()
    assert left == [("kintell.session.completed", 2), ("kintell.session.rolled_back", 2)]


def test_only_one_publisher_works_at_a_time(imported, conn, database_url):
    imported([row(1)])
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("select pg_advisory_lock(hashtext('kintell.event_publisher'), 0)")
        assert publish_waiting(database_url, "nats://127.0.0.1:1", STREAM).busy
