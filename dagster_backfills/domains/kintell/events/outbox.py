"""Moving events from the outbox to NATS JetStream: in order, in batches, each stored once. Not here: their making.

Each event has a subject of its own, and is sent with the expectation that nothing was stored under it, so that
JetStream refuses a second copy however much later it comes; the message id catches those that come at once.
"""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import nats
import nats.errors
import nats.js.errors
import psycopg
from nats.js.api import StreamConfig

from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills.errors import NotUsableError
from dagster_backfills.postgres.connection import connect
from dagster_backfills.redact import redact

BATCH = 1000
ACK_SECONDS = 15.0
WRONG_LAST_SEQUENCE = 10071
SUBJECTS = "kintell.session.>"


class NatsUnavailable(NotUsableError):
    """NATS can't be reached or does not take events now; they wait. The message is stored and logged: no secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


@dataclass
class Published:
    """Events that are stored in JetStream now; `again` of them had been stored before."""

    events: int = 0
    again: int = 0
    busy: bool = False


def publish_waiting(url: str, nats_url: str, stream: str) -> Published:
    """Send what waits in the outbox. Raises `NatsUnavailable`; what was stored until then is noted, and the rest waits.
    With another publisher at work nothing is done, and `busy` says so."""
    with connect(url, autocommit=True, application_name="kintell-publisher") as conn:
        if not STATEMENTS.try_publisher(conn):
            return Published(busy=True)
        if not STATEMENTS.count_waiting(conn, most=1):
            return Published()
        try:
            return asyncio.run(_publish(conn, nats_url, stream))
        except NatsUnavailable as error:
            STATEMENTS.note_publish_error(conn, error=error.message)
            raise


async def _publish(conn: psycopg.Connection, nats_url: str, stream: str) -> Published:
    done = Published()
    connection = await connect_to_nats(nats_url)
    try:
        jetstream = connection.jetstream(timeout=ACK_SECONDS)
        await ensure_stream(jetstream, stream)
        while events := take(conn, BATCH):
            stored, again, problem = await _send(jetstream, stream, events)
            STATEMENTS.mark_published(conn, positions=stored)
            done.events += len(stored)
            done.again += again
            if problem:
                raise NatsUnavailable(f"{done.events} events were stored, then NATS refused: {problem}")
        STATEMENTS.note_published(conn)
        return done
    finally:
        await connection.close()


async def connect_to_nats(nats_url: str) -> Any:
    """A connection that is closed by whoever has it. Raises `NatsUnavailable`."""

    async def quiet(_: Exception) -> None:
        """What goes wrong is raised where it matters."""

    if not _is_url(nats_url):
        # Before the client says what it could not read of it, which may be the password.
        raise NatsUnavailable("KINTELL_NATS_URL is not a URL like nats://user:password@host:4222.")
    try:
        # A connection that breaks stays broken: what was under way fails, and goes again in order.
        return await nats.connect(
            nats_url, allow_reconnect=False, connect_timeout=5, max_reconnect_attempts=1, error_cb=quiet
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise NatsUnavailable(
            f"NATS at {_host(nats_url)} does not answer: {error or type(error).__name__}"
        ) from error


def _is_url(nats_url: str) -> bool:
    try:
        parts = urlsplit(nats_url if "://" in nats_url else f"nats://{nats_url}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _host(nats_url: str) -> str:
    return nats_url.rsplit("@", 1)[-1].removeprefix("nats://")


async def ensure_stream(jetstream: Any, stream: str) -> None:
    """Make the stream where there is none; one that an operator made is left as it is."""
    try:
        try:
            await jetstream.stream_info(stream)
        except nats.js.errors.NotFoundError:
            await jetstream.add_stream(
                StreamConfig(
                    name=stream,
                    description="Events of imported Kintell sessions, one message a subject",
                    subjects=[SUBJECTS],
                    max_msgs_per_subject=1,
                    discard="new",  # type: ignore[arg-type]
                    discard_new_per_subject=True,
                )
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise NatsUnavailable(f"Stream {stream} can't be used: {error or type(error).__name__}") from error


def take(conn: psycopg.Connection, most: int) -> list[tuple[int, str, str, str]]:
    """The next events. It is noted that they may leave before they do: a rollback that takes sessions back in
    the meantime then announces that, instead of deleting events that are on their way."""
    with conn.transaction():
        STATEMENTS.lock_publisher(conn)
        events = list(STATEMENTS.waiting_events(conn, most=most))
        if events:
            STATEMENTS.announce_sending(conn, upto=events[-1][0])
    return events


async def _send(
    jetstream: Any, stream: str, events: list[tuple[int, str, str, str]]
) -> tuple[list[int], int, str | None]:
    """Send in order without waiting for each; returns positions that are stored, how many were so before, and
    the first problem."""

    async def send(event_id: str, event_type: str, payload: str) -> Any:
        headers = {
            "Nats-Msg-Id": event_id,
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Nats-Expected-Stream": stream,
        }
        return await jetstream.publish(f"{event_type}.{event_id}", payload.encode(), headers=headers)

    # Tasks start in the order in which they are made, and each hands its message over before it waits.
    outcomes = await asyncio.gather(*(send(*rest) for _, *rest in events), return_exceptions=True)
    stored, again, problem = [], 0, None
    for (position, *_), outcome in zip(events, outcomes, strict=True):
        was_there = getattr(outcome, "err_code", None) == WRONG_LAST_SEQUENCE
        if isinstance(outcome, BaseException) and not was_there:
            problem = problem or str(outcome) or type(outcome).__name__
        else:
            stored.append(position)
            again += was_there or bool(getattr(outcome, "duplicate", None))
    return stored, again, problem
