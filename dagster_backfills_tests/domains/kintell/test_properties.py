"""Properties that hold for any file."""

import csv
import io

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_backfills.domains.kintell.after.error_file import stream_errors
from dagster_backfills.domains.kintell.after.rollback import roll_back
from dagster_backfills.domains.kintell.file.register import register
from dagster_backfills.domains.kintell.importing.importer import Options, run_import
from dagster_backfills_tests.domains.kintell.sample import COLUMNS, add_users, row, state, write_csv

WHOLE = "select * from kintell.kintell_sessions order by id"
texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)
changes = st.one_of(
    st.just({}),
    st.just({}),
    st.dictionaries(st.sampled_from(COLUMNS), texts, min_size=1, max_size=3),
    st.fixed_dictionaries({"feedback_text": texts}),
    st.sampled_from(
        [{"participant_email": "nobody@example.com"}, {"rating": "5"}, {"session_type": "MENTORSHIP"}]
    ),
)
files = st.lists(st.tuples(st.integers(0, 12), changes), max_size=15).map(
    lambda rows: [row(n, **changed) for n, changed in rows]
)
modes = st.sampled_from(["skip", "update", "error"])
few = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def bring(database_url, conn, tmp_path):
    add_users(conn)

    def run(rows, mode="skip", batch_rows=4, columns=COLUMNS):
        path = write_csv(tmp_path / "any.csv", rows, columns)
        job = register(conn, str(path), [str(tmp_path)], on_duplicate=mode).job
        return run_import(database_url, job, Options(batch_rows=batch_rows), [str(tmp_path)])

    def clear():
        conn.execute("truncate kintell.backfill_jobs, kintell.kintell_sessions, kintell.event_outbox cascade")

    run.clear = clear
    return run


@few
@given(files, modes, st.integers(1, 9))
def test_every_row_is_accounted_for(bring, conn, rows, mode, batch_rows):
    bring.clear()
    job = bring(rows, mode, batch_rows)
    assert job.status == "completed"
    assert job.processed_rows == job.total_rows == len(rows)
    assert job.processed_rows == job.inserted_rows + job.updated_rows + job.skipped_rows + job.failed_rows
    found = state(conn)
    assert (len(found["sessions"]), len(found["events"])) == (job.inserted_rows, job.inserted_rows)
    assert len(found["errors"]) == job.failed_rows


@few
@given(files)
def test_the_result_does_not_depend_on_the_batch_size(bring, conn, rows):
    outcomes = []
    for batch_rows in (1, 3, 1000):
        bring.clear()
        bring(rows, "skip", batch_rows)
        found = state(conn)
        outcomes.append((found["sessions"], found["errors"], found["events"]))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@few
@given(files, modes)
def test_importing_a_file_twice_changes_nothing(bring, conn, rows, mode):
    bring.clear()
    bring(rows, mode)
    before, events = conn.execute(WHOLE).fetchall(), state(conn)["events"]
    job = bring(rows, mode)
    assert (job.inserted_rows, job.updated_rows) == (0, 0)
    assert (conn.execute(WHOLE).fetchall(), state(conn)["events"]) == (before, events)


@few
@given(files)
def test_corrected_rows_are_imported(bring, conn, rows):
    bring.clear()
    job = bring(rows)
    rejected = list(csv.DictReader(io.StringIO("".join(stream_errors(conn, job)))))
    assert len(rejected) == job.failed_rows
    fixed = [{**r, **row(100 + i)} for i, r in enumerate(rejected)]
    again = bring(fixed, columns=[*COLUMNS, "_error_row", "_error_message"])
    assert (again.inserted_rows, again.failed_rows) == (len(fixed), 0)


@few
@given(files, files, st.sampled_from(["skip", "update"]))
def test_a_rollback_restores_the_tables_exactly(bring, conn, database_url, first, second, mode):
    bring.clear()
    bring(first)
    before = conn.execute(WHOLE).fetchall()
    job = bring(second, mode)
    roll_back(database_url, job.id)
    assert conn.execute(WHOLE).fetchall() == before


def test_any_edit_of_a_session_is_detected(conn, bring):
    bring([row(1)])
    before = conn.execute("select updated_at from kintell.kintell_sessions").fetchone()
    conn.execute("update kintell.kintell_sessions set rating = 1")
    assert conn.execute("select updated_at from kintell.kintell_sessions").fetchone() > before
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("update kintell.kintell_sessions set rating = 6")
