"""The job that sets controls, in a project whose backfill has a database of its own."""

import psycopg

from dagster_backfills.defs.operations.controls import control_backfill
from dagster_backfills_tests.components.adopting import copied, project_in


def test_controls_are_set_in_the_backfills_own_database(tmp_path, make_database, conn, monkeypatch):
    other = make_database()
    defs = project_in(tmp_path)
    copied(defs, "member_months", ("schedule", "database: REPORTING_URL\n  schedule"))
    monkeypatch.setenv("REPORTING_URL", other)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert control_backfill.execute_in_process(
        run_config={"backfill": "member_months", "paused": True}
    ).success
    controls = "select backfill, paused from backfill.controls"
    with psycopg.connect(other) as reporting:
        assert reporting.execute(controls).fetchall() == [("member_months", True)]
    assert conn.execute(controls).fetchall() == []
