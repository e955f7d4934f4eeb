"""Staged values are those of the frame, and existing IDs of any form are detected."""

from datetime import UTC, datetime
from uuid import UUID

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills.domains.kintell.importing.writer import stage
from dagster_backfills.domains.kintell.statements import STATEMENTS
from dagster_backfills_tests.domains.kintell.sample import add_users, row, write_csv

COLUMNS = {
    "row_number": pl.Int64,
    "id": pl.Binary,
    "external_session_id": pl.String,
    "session_type": pl.String,
    "participant_id": pl.Binary,
    "volunteer_id": pl.Binary,
    "scheduled_at": pl.Datetime("us", "UTC"),
    "duration_minutes": pl.Int32,
    "rating": pl.Int16,
    "feedback_text": pl.String,
    "language_level": pl.String,
    "event_position": pl.Int64,
}
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
UUIDS = st.binary(min_size=16, max_size=16)
ROW = st.tuples(
    st.integers(-(2**63), 2**63 - 1),
    UUIDS,
    TEXTS | st.sampled_from(['""', "\\.", "\\N", "\r", "a\rb"]),
    TEXTS,
    UUIDS,
    UUIDS,
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),
    st.integers(-(2**31), 2**31 - 1),
    st.none() | st.integers(-(2**15), 2**15 - 1),
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.integers(-(2**63), 2**63 - 1),
)


@pytest.fixture
def table(conn):
    STATEMENTS.create_stage(conn)
    conn.execute("set datestyle = 'German'")
    return conn


def staged(conn, rows):
    with conn.transaction():
        stage(conn, pl.DataFrame(rows, schema=COLUMNS, orient="row"))
        conn.execute("set local datestyle = 'ISO'")
        found = conn.execute("select * from pg_temp.import_stage").fetchall()
        return [tuple(v.bytes if isinstance(v, UUID) else v for v in values) for values in found]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, max_size=20))
def test_every_staged_value_arrives_unchanged(table, rows):
    assert staged(table, rows) == rows


def test_existing_ids_of_any_form_are_detected(conn, database_url, tmp_path):
    add_users(conn)
    ids = ['a"b', "a\\b", "{a}", "a,b", "'a'", "null", "é\u202e", "a\nb", "\\", '"']
    for name, inserted, skipped in (("a.csv", len(ids), 0), ("b.csv", 0, len(ids))):
        rows = [row(n, session_id=text, feedback_text=name) for n, text in enumerate(ids)]
        job = register(conn, str(write_csv(tmp_path / name, rows)), [str(tmp_path)]).job
        done = run_import(database_url, job, Options(), [str(tmp_path)])
        assert (done.inserted_rows, done.skipped_rows, done.failed_rows) == (inserted, skipped, 0)
