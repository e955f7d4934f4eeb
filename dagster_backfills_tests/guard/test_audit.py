"""The audit log of requests: the writer's login can only add entries."""

import pytest

from dagster_backfills.engine import audit
from dagster_backfills_tests.guard.conftest import Guarded
from dagster_backfills_tests.guard.test_roles import refused


def test_the_writer_adds_entries_with_its_own_name_and_the_servers_time(guarded: Guarded) -> None:
    with guarded.connect("writer") as conn:
        audit.record(conn, audit.Entry("olga", "launchRun", "job", {"training"}, "done", ["r1"]))
        (entry,) = (e for e in audit.latest(conn, 100) if e["runs"] == ["r1"])
        (ago,) = (
            conn.execute("select clock_timestamp() - %s < interval '1 minute'", [entry["at"]]).fetchone()
            or ()
        )
    assert (entry["login"], ago) == (guarded.logins["writer"], True)


@pytest.mark.parametrize(
    "statement",
    [
        "update backfill.audit set who = 'somebody else'",
        "delete from backfill.audit",
        "truncate backfill.audit",
        "alter table backfill.audit disable trigger all",
        "drop table backfill.audit",
        "insert into backfill.audit (at, request, who, action, target, outcome)"
        " values ('2001-01-01', gen_random_uuid(), 'x', 'x', 'x', 'done')",
        "insert into backfill.audit (login, request, who, action, target, outcome)"
        " values ('x', gen_random_uuid(), 'x', 'x', 'x', 'done')",
        "insert into backfill.audit (id, request, who, action, target, outcome)"
        " overriding system value values (1, gen_random_uuid(), 'x', 'x', 'x', 'done')",
    ],
)
def test_the_writer_can_not_change_entries_nor_choose_their_time_and_login(
    guarded: Guarded, statement: str
) -> None:
    with guarded.connect("writer") as conn:
        refused(conn, statement)


@pytest.mark.parametrize("role", ["reader", "enqueuer"])
def test_no_other_role_can_read_it(guarded: Guarded, role: str) -> None:
    with guarded.connect(role) as conn:
        refused(conn, "select from backfill.audit")
