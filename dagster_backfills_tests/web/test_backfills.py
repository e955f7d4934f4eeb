"""The verbs of any backfill and the steps of the scoring chain over HTTP."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dagster_backfills.engine import audit
from dagster_backfills_tests.web.conftest import bearer, work_off_runs

HEADERS = bearer("backfills")
TRAINING = "/api/backfills/training_completions"


@pytest.fixture
def organizations(conn):
    conn.execute("insert into training.training_videos values ('v1', 'Video', 1), ('v2', 'Another', 2)")
    conn.execute("insert into training.organizations values ('o1', 'One'), ('o2', 'Two')")
    conn.execute(
        "insert into training.members (id, organization_id, user_email) values "
        "('m1', 'o1', 'm1@example.org'), ('m2', 'o2', 'm2@example.org'), ('m3', 'o2', 'm3@example.org')"
    )
    return lambda: conn.execute(
        "select count(*) from training.employee_training_video_completions"
    ).fetchone()[0]


def working(ask):
    """The response to a request that waits for its run, which the test executes meanwhile."""
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask)
        ended, deadline = [], threading.Event()
        while not ended and not answer.done():
            deadline.wait(0.3)
            ended = work_off_runs()
        return answer.result(timeout=120)


@pytest.mark.e2e
def test_a_backfill_is_planned_run_watched_and_undone(doors, organizations, conn):
    names = [each["name"] for each in doors.get("/api/backfills", headers=HEADERS).json()["backfills"]]
    assert {"training_completions", "progress_stats"} <= set(names)
    plan = doors.post(f"{TRAINING}/plan", json={"which": "all"}, headers=HEADERS).json()
    assert plan["total"]["training/employee_training_video_completions"]["inserted"] == 6
    assert organizations() == 0

    run = doors.post(f"{TRAINING}/run", json={"partitions": ["o2"]}, headers=HEADERS)
    assert (run.status_code, run.json()["status"]) == (202, "queued")
    [launch] = audit.latest(conn, 2)
    assert (launch["action"], launch["runs"]) == ("launch", [run.json()["runId"]])
    assert work_off_runs() == ["SUCCESS"]
    state = doors.get(run.json()["statusUrl"], headers=HEADERS).json()
    assert (state["finished"], state["success"], organizations()) == (True, True, 4)
    [written] = [
        each for each in state["tables"] if each["asset"] == "training/employee_training_video_completions"
    ]
    assert [written[name] for name in ("inserted", "updated", "deleted")] == [4, 0, 0]
    status = doors.get(f"{TRAINING}/status", headers=HEADERS).json()
    assert status["partitions"]["all"] == 2
    assert status["runs"][0]["runId"] == run.json()["runId"]

    undo = {"runId": run.json()["runId"]}
    preview = doors.post(f"{TRAINING}/undo", json=undo, headers=HEADERS)
    assert (preview.status_code, organizations()) == (200, 4)
    assert preview.json()["total"]["training/employee_training_video_completions"]["deleted"] == 4
    other = doors.post("/api/backfills/progress_stats/undo", json=undo, headers=HEADERS)
    assert (other.status_code, "has not written any table of progress_stats" in other.text) == (400, True)
    assert doors.post(f"{TRAINING}/undo", json={**undo, "dryRun": False}, headers=HEADERS).status_code == 202
    assert work_off_runs() == ["SUCCESS"]
    assert organizations() == 0


@pytest.mark.parametrize(
    ("path", "body", "code", "message"),
    [
        ("/api/backfills/nothing/run", {}, 404, "nothing"),
        (f"{TRAINING}/run", {"partitions": ["nowhere"]}, 400, "no partition 'nowhere'"),
        (f"{TRAINING}/run", {"which": "some"}, 422, "which"),
        (f"{TRAINING}/plan", {"which": "named"}, 422, "there are no partitions"),
        (f"{TRAINING}/plan", {"which": "all", "partitions": ["o1"]}, 422, "can't be used together"),
        (f"{TRAINING}/undo", {"runId": "nothing"}, 400, "No run ID begins"),
        ("/api/training/backfill", {"organizationId": "nowhere"}, 404, "nowhere"),
    ],
)
def test_invalid_requests_are_refused_before_a_run_is_launched(
    doors, organizations, path, body, code, message
):
    refused = doors.post(path, json=body, headers=HEADERS)
    assert (refused.status_code, message in refused.text) == (code, True), refused.text
    assert work_off_runs() == []


@pytest.mark.e2e
def test_completion_records_are_made_for_one_organization_or_all(doors, organizations):
    asked = doors.post("/api/training/backfill", json={"organizationId": "o1"}, headers=HEADERS)
    assert (asked.status_code, asked.json()["recordsMissing"]) == (202, 2)
    assert work_off_runs() == ["SUCCESS"]
    assert organizations() == 2
    done = working(lambda: doors.post("/api/training/backfill", json={"waitSeconds": 120}, headers=HEADERS))
    assert done.status_code == 200
    assert [done.json()[n] for n in ("organizations", "members", "videos", "recordsCreated")] == [2, 3, 2, 4]


@pytest.mark.e2e
def test_the_chain_runs_step_by_step_and_each_response_has_its_counts(doors, conn):
    conn.execute("insert into scoring.gyms (id, name) values ('g', 'Gym')")
    conn.execute(
        "insert into scoring.members (id, gym_id, first_name, last_name, status, joined_date) "
        "select 'm' || n, 'g', 'F', 'L', 'active', current_date - 90 from generate_series(1, 3) as n"
    )
    conn.execute("insert into scoring.coaches (id, gym_id) values ('c', 'g')")
    conn.execute(
        "insert into scoring.member_coaches (coach_id, member_id) select 'c', 'm' || n from generate_series(1, 3) as n"
    )
    for name, more in (
        ("commitment-scores", {}),
        ("at-risk-detection", {}),
        ("coach-actions", {"actionsCreated": 3}),
    ):
        path = f"/api/cron/{name}"
        done = working(lambda path=path: doors.post(path, headers=bearer("cron")))
        assert done.status_code == 200, done.text
        payload = done.json()
        expected = {"success": True, "processed": 1 if more else 3, "updated": 3, "errors": 0, **more}
        assert {key: payload[key] for key in expected} == expected
        assert payload["duration"] > 0


def test_the_chain_accepts_post_and_in_development_also_get(doors, open_doors):
    assert doors.get("/api/cron/coach-actions", headers=bearer("cron")).status_code == 405
    at_home = open_doors(client="10.0.0.9", development=True)
    path = "/api/cron/coach-actions?date=2999-01-01"
    early = at_home.get(path, headers=bearer("cron"))
    assert (early.status_code, "is not over" in early.text) == (422, True)
    assert at_home.get(path).status_code == 401
    assert doors.post("/api/cron/coach-actions?date=soon", headers=bearer("cron")).status_code == 422
