"""The audit log: controls and undos are recorded, and nobody can change an entry."""

from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from dagster_backfills.engine import audit
from dagster_backfills.engine.controls import Setting, change
from dagster_backfills.errors import UserError


def test_the_latest_entry_of_each_request_is_listed_newest_request_first(conn: psycopg.Connection) -> None:
    first = audit.Entry("olga", "launchRun", "job", {"training"}, "started")
    audit.record(conn, first)
    audit.record(conn, audit.Entry("vera", "wipeAssets", "x", None, "refused", detail="may not"))
    audit.record(
        conn, audit.Entry("olga", "launchRun", "job", {"training"}, "done", ["r1"], "", first.request)
    )
    conn.commit()
    listed = audit.latest(conn, 10)
    assert [(e["who"], e["outcome"], e["domains"], e["runs"]) for e in listed] == [
        ("olga", "done", ["training"], ["r1"]),
        ("vera", "refused", None, []),
    ]
    assert [e["who"] for e in audit.latest(conn, 10, "vera")] == ["vera"]
    assert len(audit.latest(conn, 1)) == 1


@pytest.mark.parametrize(
    "statement",
    ["update backfill.audit set who = 'me'", "delete from backfill.audit", "truncate backfill.audit"],
)
def test_not_even_the_owner_can_change_audit_entries(conn: psycopg.Connection, statement: str) -> None:
    audit.record(conn, audit.Entry("olga", "pause", "x", None, "done"))
    conn.commit()
    with pytest.raises(
        InsufficientPrivilege, match=r"backfill\.audit is not allowed: the table is append-only"
    ):
        conn.execute(statement)
    conn.rollback()
    assert [e["who"] for e in audit.latest(conn, 10)] == ["olga"]


def test_a_change_of_controls_is_audited_with_its_user_and_a_rejected_one_is_not(
    conn: psycopg.Connection,
) -> None:
    change(conn, "parts", ["made/parts"], Setting(paused=True, rest_seconds=2), "alice@host")
    with pytest.raises(UserError):
        change(conn, "parts", ["made/parts"], Setting(zone="Nowhere"), "alice@host")
    (entry,) = audit.latest(conn, 10)
    kept: dict[str, Any] = {name: entry[name] for name in ("who", "action", "target", "domains", "outcome")}
    assert kept == {
        "who": "alice@host", "action": "control", "target": "parts", "domains": ["made"], "outcome": "done",
    }  # fmt: skip
    assert entry["detail"] == "paused = True, rest_seconds = 2"
