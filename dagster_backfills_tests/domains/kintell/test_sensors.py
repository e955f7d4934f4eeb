"""The sensors, evaluated as by the daemon, and publishing while NATS goes down and comes back."""

import dagster as dg
import pytest

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.kintell.resources import KintellSettings
from dagster_backfills.defs.kintell.sensors import kintell_events, kintell_summary_refresh
from dagster_backfills_tests.domains.kintell.sample import row
from dagster_backfills_tests.domains.kintell.test_jobs import definitions, run  # noqa: F401
from dagster_backfills_tests.domains.kintell.test_outbox import imported, nats_server, needs_nats, waiting  # noqa: F401


@pytest.fixture
def tick(database_url):
    """What a sensor says now: a run request, or why there is none."""
    with dg.DagsterInstance.ephemeral() as instance:

        def evaluate(sensor):
            with dg.build_sensor_context(
                instance=instance, resources={"postgres": PostgresResource(url=database_url)}
            ) as context:
                return sensor.evaluate_tick(context)

        yield evaluate


def test_events_are_published_while_some_wait(tick, imported, conn, monkeypatch):  # noqa: F811
    imported([row(i) for i in range(3)])
    monkeypatch.delenv("KINTELL_NATS_URL", raising=False)
    assert tick(kintell_events).skip_message
    monkeypatch.setenv("KINTELL_NATS_URL", "nats://127.0.0.1:1")
    assert tick(kintell_events).run_requests[0].tags["backfills/reason"] == "3 events waiting"
    conn.execute("update kintell.event_outbox set published_at = now()")
    assert "no events waiting" in tick(kintell_events).skip_message


def test_days_are_summarized_while_some_have_changed(tick, imported, run, conn):  # noqa: F811
    assert "no days" in tick(kintell_summary_refresh).skip_message
    imported([row(1), row(2), row(3)])
    assert (
        tick(kintell_summary_refresh).run_requests[0].tags["backfills/reason"]
        == "3 days with changed sessions"
    )
    run("refresh_daily_session_summary")
    assert "no days" in tick(kintell_summary_refresh).skip_message


@pytest.fixture
def publishing(run, monkeypatch):  # noqa: F811
    """The job that publishes, on a NATS server at `url`."""

    def publish(url):
        monkeypatch.setenv("KINTELL_NATS_URL", url)
        assert KintellSettings().nats == url
        return run("publish_kintell_events", raises=False)

    return publish


@needs_nats
def test_a_publishing_run_fails_while_nats_is_down_and_the_next_one_succeeds(
    publishing,
    imported,  # noqa: F811
    conn,
    nats_server,  # noqa: F811
    monkeypatch,
):
    from dagster_backfills.domains.kintell.events import outbox

    imported([row(i) for i in range(2500)])
    real, sent = outbox._send, []

    async def send_and_stop(jetstream, stream, events):
        if len(sent) == 1:
            nats_server.process.kill()
            nats_server.process.wait()
        sent.append(len(events))
        return await real(jetstream, stream, events)

    monkeypatch.setattr(outbox, "_send", send_and_stop)
    monkeypatch.setattr(outbox, "ACK_SECONDS", 4.0)  # for answers that never come
    failed = publishing(nats_server.url)
    assert not failed.success
    left = waiting(conn)
    assert 0 < left <= 1500
    assert conn.execute("select last_error is not null from kintell.event_publisher").fetchone() == (True,)
    monkeypatch.setattr(outbox, "_send", real)
    assert not publishing(nats_server.url).success
    assert waiting(conn) == left
    nats_server.start()
    assert publishing(nats_server.url).success
    assert [m[2]["externalSessionId"] for m in nats_server.stored()] == [f"s-{i:06d}" for i in range(2500)]
    assert conn.execute("select last_error from kintell.event_publisher").fetchone() == (None,)
