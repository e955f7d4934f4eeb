"""Case C: `kintell.users`, kept in sync with a platform's own users."""

import psycopg

from dagster_backfills_tests.components.adopting import EXAMPLES, adopter, load, query
from dagster_backfills_tests.components.applications import PLATFORM
from dagster_backfills_tests.dagster.storing import versions

USERS = "select email, name, role from kintell.users order by email"


def test_users_are_copied_and_unchanged_ones_are_not_written_again(
    conn: psycopg.Connection, database_url: str
) -> None:
    conn.execute(PLATFORM)
    with adopter(load(EXAMPLES / "kintell_users"), database_url) as a:
        assert a.settle() == 1
        assert query(conn, USERS) == [
            ("Ann@example.org", "Ann Lee", "participant"),
            ("bob@example.org", "Bob", "volunteer"),
        ]
        first = versions(conn, "kintell.users")
        assert a.tick() == 0
        a.refresh("all")
        assert versions(conn, "kintell.users") == first


def test_new_changed_and_removed_users_are_followed(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute(PLATFORM)
    with adopter(load(EXAMPLES / "kintell_users"), database_url) as a:
        a.settle()
        conn.execute("insert into public.users (email, role) values ('new@example.org', 'participant')")
        conn.execute("update public.users set last_name = 'Ross' where email = 'bob@example.org'")
        assert a.settle() == 1
        assert ("bob@example.org", "Bob Ross", "volunteer") in query(conn, USERS)
        conn.execute("delete from public.users where email = 'new@example.org'")
        assert a.tick() == 0  # polling can't see deleted rows
        a.refresh("all")  # as the nightly schedule does
        assert [row[0] for row in query(conn, USERS)] == ["Ann@example.org", "bob@example.org"]
