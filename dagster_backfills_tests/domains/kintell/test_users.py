import polars as pl
import pytest

from dagster_backfills.domains.kintell.rows.users import MAX_CACHED, Users


def test_each_of_many_users_is_found_and_unknown_addresses_are_not(conn, monkeypatch):
    conn.execute(
        "insert into kintell.users (email, name, role)"
        " select 'User' || n || '@example.com', 'User', 'participant' from generate_series(1, 30000) as n"
    )
    conn.execute("commit")
    stored = conn.execute(
        "select lower(email), uuid_send(id) from kintell.users order by random()"
    ).fetchall()
    ids = dict(stored)
    asked = [f"user{n}@example.com" for n in range(-5000, 35_001)] + ["", None]
    users = Users(conn)
    assert users.ids(pl.Series(asked, dtype=pl.String)).to_list() == [ids.get(email) for email in asked]
    monkeypatch.setattr(f"{Users.__module__}.MAX_CACHED", len(stored) - 1)
    assert len(stored) < MAX_CACHED
    few = [*asked[4990:5100], asked[-3]]
    assert Users(conn).ids(pl.Series(few, dtype=pl.String)).to_list() == [ids.get(email) for email in few]


def test_lookups_work_with_one_user_and_with_none(conn):
    assert Users(conn).ids(pl.Series(["a@example.com"])).to_list() == [None]
    conn.execute("insert into kintell.users (email, name, role) values ('a@example.com', 'A', 'participant')")
    conn.execute("commit")
    assert [
        len(found or b"") for found in Users(conn).ids(pl.Series(["b@example.com", "a@example.com"]))
    ] == [0, 16]


@pytest.mark.parametrize("held", [0, 1000])
def test_a_user_stored_in_nfd_is_found(conn, monkeypatch, held):
    monkeypatch.setattr("dagster_backfills.domains.kintell.rows.users.MAX_CACHED", held)
    insert = "insert into kintell.users (email, name, role) values (%s, 'x', 'participant') returning uuid_send(id)"
    (made,) = conn.execute(insert, ["Ju\u0308rgen@example.com"]).fetchone()
    found = Users(conn).ids(pl.Series(["j\u00fcrgen@example.com", "jurgen@example.com"]))
    assert found.to_list() == [made, None]
    (composed,) = conn.execute(insert, ["j\u00fcrgen@example.com"]).fetchone()
    assert Users(conn).ids(pl.Series(["j\u00fcrgen@example.com"])).to_list() == [composed]
