"""Publishes events from the outbox to NATS JetStream: in order, in batches, exactly once. Not here: creating events.

Each event has its own subject and is sent with an expected last sequence of 0, so JetStream rejects a second copy
however late it arrives. The message ID catches duplicates within JetStream's deduplication window.
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
    """NATS is unreachable or rejects events; they wait. The message is redacted because it is stored and logged."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


@dataclass
class PublishResult:
    """The number of events stored in JetStream; `already_stored` of them had been stored before. `busy`: another
    publisher is at work."""

    events: int = 0
    already_stored: int = 0
    busy: bool = False


def publish_waiting(url: str, nats_url: str, stream: str) -> PublishResult:
    """Publish all waiting events, unless another publisher is at work. Raises `NatsUnavailable`. Events stored before
    the error are marked as published, the others wait."""
    with connect(url, autocommit=True, application_name="kintell-publisher") as conn:
        if not STATEMENTS.try_publisher(conn):
            return PublishResult(busy=True)
        if not STATEMENTS.count_waiting(conn, most=1):
            return PublishResult()
        try:
            return asyncio.run(_publish(conn, nats_url, stream))
        except NatsUnavailable as error:
            STATEMENTS.note_publish_error(conn, error=error.message)
            raise


async def _publish(conn: psycopg.Connection, nats_url: str, stream: str) -> PublishResult:
    done = PublishResult()
    connection = await connect_to_nats(nats_url)
    try:
        jetstream = connection.jetstream(timeout=ACK_SECONDS)
        await ensure_stream(jetstream, stream)
        while events := next_events(conn, BATCH):
            stored, already_stored, problem = await _send(jetstream, stream, events)
            STATEMENTS.mark_published(conn, positions=stored)
            done.events += len(stored)
            done.already_stored += already_stored
            if problem:
                raise NatsUnavailable(f"{done.events} events were stored, then NATS refused: {problem}")
        STATEMENTS.note_published(conn)
        return done
    finally:
        await connection.close()


async def connect_to_nats(nats_url: str) -> Any:
    """Open a connection; the caller closes it. Raises `NatsUnavailable`."""

    async def ignore(_: Exception) -> None:
        """Errors are raised by the calls that fail."""

    if not _is_url(nats_url):
        # The client's own error could contain the password.
        raise NatsUnavailable("KINTELL_NATS_URL is not a URL like nats://user:password@host:4222.")
    try:
        # No reconnect: events in flight fail and are sent again in order.
        return await nats.connect(
            nats_url, allow_reconnect=False, connect_timeout=5, max_reconnect_attempts=1, error_cb=ignore
        )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        host = nats_url.rsplit("@", 1)[-1].removeprefix("nats://")
        raise NatsUnavailable(f"NATS at {host} does not answer: {error or type(error).__name__}") from error


def _is_url(nats_url: str) -> bool:
    try:
        parts = urlsplit(nats_url if "://" in nats_url else f"nats://{nats_url}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def ensure_stream(jetstream: Any, stream: str) -> None:
    """Create the stream if it does not exist. An existing stream is left unchanged."""
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


def next_events(conn: psycopg.Connection, most: int) -> list[tuple[int, str, str, str]]:
    """The next events to send. Their highest position is recorded first, so that a concurrent rollback publishes
    `rolled_back` events instead of deleting events that are being sent."""
    with conn.transaction():
        STATEMENTS.lock_publisher(conn)
        events = list(STATEMENTS.waiting_events(conn, most=most))
        if events:
            STATEMENTS.announce_sending(conn, upto=events[-1][0])
    return events


async def _send(
    jetstream: Any, stream: str, events: list[tuple[int, str, str, str]]
) -> tuple[list[int], int, str | None]:
    """Send the events in order without waiting for each acknowledgement. Returns the stored positions, how many of them
    had been stored before, and the first problem."""

    async def send(event_id: str, event_type: str, payload: str) -> Any:
        headers = {
            "Nats-Msg-Id": event_id,
            "Nats-Expected-Last-Subject-Sequence": "0",
            "Nats-Expected-Stream": stream,
        }
        return await jetstream.publish(f"{event_type}.{event_id}", payload.encode(), headers=headers)

    # Tasks start in the order of their creation, and each writes its message before it first awaits a reply.
    outcomes = await asyncio.gather(*(send(*rest) for _, *rest in events), return_exceptions=True)
    stored, already_stored, problem = [], 0, None
    for (position, *_), outcome in zip(events, outcomes, strict=True):
        is_duplicate = getattr(outcome, "err_code", None) == WRONG_LAST_SEQUENCE
        if isinstance(outcome, BaseException) and not is_duplicate:
            problem = problem or str(outcome) or type(outcome).__name__
        else:
            stored.append(position)
            already_stored += is_duplicate or bool(getattr(outcome, "duplicate", None))
    return stored, already_stored, problem
