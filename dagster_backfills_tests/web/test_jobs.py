"""Background jobs over HTTP: enqueue, list, cancel, retry, process. Other owners' jobs are invisible."""

import pytest

from dagster_backfills_tests.web.conftest import bearer, work_off_runs

STEPS = "Open the door. Press the key. Wait a minute. Read the dial. Turn the wheel. Close the door. Sign the list."
JOB = {"jobType": "sop_generation", "inputData": {"title": "Boiler", "transcript": STEPS, "duration": 60}}
ACME = {"Authorization": "Bearer the-secret-of-acme"}


def enqueue(doors, headers=None, **more):
    return doors.post("/api/jobs", json={**JOB, **more}, headers=headers or bearer("jobs"))


@pytest.mark.e2e
def test_a_job_is_enqueued_listed_shown_and_processed_by_a_run(doors):
    made = enqueue(doors, priority=2, userId="u1", uniqueKey="once")
    assert made.status_code == 201
    assert (made.json()["priority"], made.json()["status"]) == (2, "pending")
    assert enqueue(doors, uniqueKey="once").json()["id"] == made.json()["id"]
    asked = doors.post("/api/jobs/process", json={"jobTypes": ["sop_generation"]}, headers=bearer("jobs"))
    assert (asked.status_code, asked.json()["waiting"]) == (202, {"sop_generation": 1})
    again = doors.post("/api/jobs/process", headers=bearer("jobs"))
    assert again.json()["runId"] == asked.json()["runId"]
    assert work_off_runs() == ["SUCCESS"]
    shown = doors.get(f"/api/jobs/{made.json()['id']}", headers=bearer("jobs")).json()
    assert (shown["status"], shown["progressPercentage"]) == ("completed", 100)
    assert shown["outputData"]
    idle = doors.post("/api/jobs/process", json={"jobTypes": ["sop_generation"]}, headers=bearer("jobs"))
    assert (idle.json()["runId"], idle.json()["message"]) == (None, "No jobs are waiting.")


def test_jobs_are_listed_page_by_page(doors):
    made = [enqueue(doors).json()["id"] for _ in range(5)]
    first = doors.get("/api/jobs", params={"limit": 3, "status": "pending"}, headers=bearer("jobs")).json()
    second = doors.get(
        "/api/jobs", params={"limit": 3, "before": first["next"]}, headers=bearer("jobs")
    ).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next"] is None


@pytest.mark.e2e
def test_a_job_is_cancelled_and_a_failed_one_retried(doors, conn):
    job = enqueue(doors).json()["id"]
    assert doors.post(f"/api/jobs/{job}/retry", headers=bearer("jobs")).status_code == 409
    cancelled = doors.post(f"/api/jobs/{job}/cancel", json={"reason": "no need"}, headers=bearer("jobs"))
    assert cancelled.json()["status"] == "cancelled"
    assert doors.post(f"/api/jobs/{job}/cancel", headers=bearer("jobs")).status_code == 409

    bad = enqueue(doors, jobType="transcription", inputData={"audio_url": "file:///nowhere"}).json()["id"]
    doors.post("/api/jobs/process", headers=bearer("jobs"))
    work_off_runs()
    failed = doors.get(f"/api/jobs/{bad}", headers=bearer("jobs")).json()
    assert failed["status"] == "failed"
    assert doors.post(f"/api/jobs/{bad}/retry", headers=bearer("jobs")).json()["status"] == "pending"


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ({"jobType": "nothing"}, 422, "nothing"),
        ({"inputData": {}}, 422, "transcript"),
        ({"priority": 11}, 422, "priority"),
        ({"runAfter": "2026-01-01T00:00:00"}, 422, "timezone"),
        ({"color": "red"}, 422, "color"),
    ],
)
def test_an_invalid_job_is_refused(doors, more, code, message):
    refused = enqueue(doors, **more)
    assert (refused.status_code, message in refused.text) == (code, True), refused.text
    assert doors.get("/api/jobs", headers=bearer("jobs")).json()["jobs"] == []


def test_an_owners_token_sees_and_changes_only_that_owners_jobs(doors):
    theirs = enqueue(doors, companyId="other", uniqueKey="taken").json()["id"]
    own = enqueue(doors, ACME).json()
    assert own["companyId"] == "acme"
    assert [job["id"] for job in doors.get("/api/jobs", headers=ACME).json()["jobs"]] == [own["id"]]
    query = {"companyId": "other"}
    assert [j["id"] for j in doors.get("/api/jobs", params=query, headers=ACME).json()["jobs"]] == [own["id"]]
    assert doors.get(f"/api/jobs/{theirs}", headers=ACME).status_code == 404
    assert doors.get("/api/jobs/events", params={"id": theirs}, headers=ACME).status_code == 404
    for verb in ("cancel", "retry"):
        assert doors.post(f"/api/jobs/{theirs}/{verb}", headers=ACME).status_code == 404
    assert enqueue(doors, ACME, companyId="other").status_code == 403
    assert enqueue(doors, ACME, uniqueKey="taken").status_code == 409
    assert doors.post("/api/jobs/process", headers=ACME).status_code == 403
    assert doors.get(f"/api/jobs/{theirs}", headers=bearer("jobs")).json()["status"] == "pending"
