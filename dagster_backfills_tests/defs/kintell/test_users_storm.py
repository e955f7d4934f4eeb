"""Users who come and go by the hundred while sessions of theirs are imported."""

import random
import threading
from collections import Counter

import psycopg
import pytest

from dagster_backfills.defs.kintell import importer, writer
from dagster_backfills.defs.kintell.importer import Options, run_import
from dagster_backfills.defs.kintell.register import register
from dagster_backfills_tests.defs.kintell.sample import row, write_csv
from dagster_backfills_tests.defs.kintell.test_users_stay import DANGLING

ROWS, BATCH, REMOVERS = 2000, 20, 3
REFUSED = (
    psycopg.errors.ForeignKeyViolation,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
)


def address(n):
    return f"someone{n}@example.com"


def remove_some(url, seed, stop, outcomes):
    """Take users away, and most of them back under another id, in every kind of transaction."""
    rng = random.Random(seed)
    with psycopg.connect(url) as conn:
        while not stop.wait(rng.uniform(0, 0.1)):
            level = rng.choice(
                (psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ)
            )
            conn.isolation_level = level
            who = [address(rng.randrange(ROWS)) for _ in range(rng.choice((1, 1, 20)))]
            try:
                with conn.transaction(force_rollback=rng.random() < 0.1):
                    conn.execute("select count(*) from kintell.kintell_sessions")  # the snapshot is of now
                    stop.wait(rng.uniform(0, 0.01))
                    if rng.random() < 0.3:
                        conn.execute(
                            "update kintell.users set id = gen_random_uuid() where email = any(%s)", [who]
                        )
                    else:
                        conn.execute("delete from kintell.users where email = any(%s)", [who])
                        if rng.random() < 0.9:
                            conn.execute(ADD, [who])
                    stop.wait(rng.uniform(0, 0.01))
                outcomes["removed"] += 1
            except REFUSED as error:
                outcomes[type(error).__name__] += 1


ADD = """
    insert into kintell.users (email, name, role) select unnest(%s::text[]), '', 'participant'
    on conflict (lower(email)) do nothing
"""


@pytest.mark.timeout(300)
def test_no_session_is_left_without_its_users_however_many_come_and_go(
    conn, database_url, tmp_path, monkeypatch
):
    monkeypatch.setattr(importer, "REFRESH_AFTER", 0)
    ways, outcomes, real = Counter(), Counter(), writer.keep_users

    def watched(connection, removals):
        stay = real(connection, removals)
        ways[stay] += 1
        return stay

    monkeypatch.setattr(writer, "keep_users", watched)
    conn.execute(ADD, [[address(n) for n in range(ROWS)]])
    rows = [
        row(n, participant_email=address(n), volunteer_email=address((n * 7 + 1) % ROWS)) for n in range(ROWS)
    ]
    job = register(conn, str(write_csv(tmp_path / "a.csv", rows)), [str(tmp_path)]).job
    stop = threading.Event()
    removers = [
        threading.Thread(target=remove_some, args=(database_url, seed, stop, outcomes))
        for seed in range(REMOVERS)
    ]
    for remover in removers:
        remover.start()
    try:
        done = run_import(database_url, job, Options(batch_rows=BATCH), [str(tmp_path)])
    finally:
        stop.set()
        for remover in removers:
            remover.join()
    assert conn.execute(DANGLING).fetchone() == (0,)
    assert (done.status, done.inserted_rows + done.failed_rows) == ("completed", ROWS)
    assert conn.execute("select count(*) from kintell.kintell_sessions").fetchone() == (done.inserted_rows,)
    assert outcomes["removed"] > 10
    assert outcomes["ForeignKeyViolation"] > 0
    assert ways[True] > 0
    assert ways[False] > 0
