"""Files and users shared by the tests of the import."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import psycopg

COLUMNS = (
    "session_id",
    "session_type",
    "participant_email",
    "volunteer_email",
    "date",
    "duration_min",
    "rating",
    "feedback_text",
    "language_level",
)


def row(n: int, **changes: str) -> dict[str, str]:
    """A good row; `changes` make it another."""
    return {
        "session_id": f"s-{n:06d}",
        "session_type": "Mentorship" if n % 3 else "Language Connect",
        "participant_email": f"participant{n % 7}@example.com",
        "volunteer_email": f"volunteer{n % 5}@example.com",
        "date": f"2024-{n % 12 + 1:02d}-{n % 28 + 1:02d}T10:00:00Z",
        "duration_min": str(30 + n % 60),
        "rating": str(n % 5 + 1) if n % 2 else "",
        "feedback_text": f'Good, "very" good {n}' if n % 4 == 0 else "",
        "language_level": "b1" if n % 3 == 0 else "",
        **changes,
    }


def mixed_rows(n: int) -> list[dict[str, str]]:
    """`n` rows; about one in ten is bad in one of many ways."""
    bad = [
        {"session_id": ""},
        {"session_type": "Chat"},
        {"participant_email": "nobody@example.com"},
        {"volunteer_email": "not an address"},
        {"date": "yesterday"},
        {"duration_min": "0"},
        {"rating": "6"},
        {"language_level": "D1"},
        {"session_id": "s-000000"},
    ]
    return [row(i, **(bad[i // 10 % len(bad)] if i % 10 == 9 else {})) for i in range(n)]


def csv_text(rows: Iterable[dict[str, str]], columns: Iterable[str] = COLUMNS) -> str:
    out, rows = io.StringIO(), list(rows)
    # A writer that ends lines by LF leaves a lone CR unquoted, which would be another line.
    lone = any("\r" in value for row in rows for value in row.values())
    quoting = csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(out, list(columns), extrasaction="ignore", lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_csv(path: Path, rows: Iterable[dict[str, str]], columns: Iterable[str] = COLUMNS) -> Path:
    path.write_text(csv_text(rows, columns), encoding="utf-8", newline="")
    return path


def add_users(conn: psycopg.Connection) -> None:
    with conn.cursor() as cursor:
        for role, n in (("participant", 7), ("volunteer", 5)):
            cursor.executemany(
                "insert into kintell.users (email, name, role) values (%s, %s, %s) on conflict do nothing",
                [(f"{role.capitalize()}{i}@example.com", f"{role} {i}", role) for i in range(n)],
            )


SESSIONS = """
    select external_session_id, session_type, p.email, v.email, scheduled_at, completed_at, duration_minutes, rating,
        feedback_text, language_level
    from kintell.kintell_sessions as s
    join kintell.users as p on p.id = s.participant_id
    join kintell.users as v on v.id = s.volunteer_id
    order by external_session_id
"""
ERRORS = """
    select row_number, error_message, row_values, replayable, resolved_at is null
    from kintell.backfill_row_errors order by job_id, row_number
"""
EVENTS = """
    select event_type, payload ->> 'externalSessionId', payload ->> 'scheduledAt', payload ->> 'durationMinutes',
        payload ->> 'languageLevel', payload ->> 'sessionType', (payload ->> 'id')::uuid = id,
        (payload ->> 'sessionId')::uuid = session_id
    from kintell.event_payloads order by position
"""
COUNTS = """
    select status, total_rows, processed_rows, inserted_rows, updated_rows, skipped_rows, failed_rows,
        last_processed_row, checkpoint_offset
    from kintell.backfill_jobs order by created_at
"""


def state(conn: psycopg.Connection) -> dict[str, list[tuple]]:
    """All that an import leaves behind, without the ids that chance made."""
    queries = {"sessions": SESSIONS, "errors": ERRORS, "events": EVENTS, "counts": COUNTS}
    return {name: conn.execute(query).fetchall() for name, query in queries.items()}
