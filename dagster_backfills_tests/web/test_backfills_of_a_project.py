"""The API in a user's own project: its backfills, run from its own code location."""

import pytest

from dagster_backfills_tests.components.adopting import copied, project_in
from dagster_backfills_tests.web.conftest import bearer

HEADERS = bearer("backfills")


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder)
    return project_in(folder)


def test_a_run_uses_the_projects_location_and_a_declaration_with_a_mistake_gets_409_under_each_name(
    project, open_doors
):
    copied(project, "member_months", ("schedule", "nowhere: 1\n  schedule"))
    doors = open_doors()
    listed = doors.get("/api/backfills", headers=HEADERS).json()["backfills"]
    assert [each["name"] for each in listed] == ["kintell_users"]
    mistaken = doors.get("/api/backfills/member_months/status", headers=HEADERS)
    assert (mistaken.status_code, "nowhere" in mistaken.text) == (409, True)
    (project / "member_months").rename(project / "another")
    name = "name: months\n  nowhere: 1\n  schedule"
    copied(project, "member_months", ("schedule", name)).rename(project / "of_months")
    for name in ("months", "of_months"):
        mistaken = doors.get(f"/api/backfills/{name}/status", headers=HEADERS)
        assert (mistaken.status_code, "nowhere" in mistaken.text) == (409, True)
    queued = doors.post("/api/backfills/kintell_users/run", json={"which": "all"}, headers=HEADERS)
    assert queued.status_code == 202, queued.text
    run = doors.app.state.actions.runs.find(queued.json()["runId"])
    location = run.remote_job_origin.repository_origin.code_location_origin.location_name
    assert location == "project_of_shop.definitions"
