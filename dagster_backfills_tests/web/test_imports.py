"""Imports over HTTP: upload, watch, fetch errors, resume, replay, roll back."""

import gzip
import io
import json

import openpyxl
import pytest

from dagster_backfills.domains.kintell.after.error_workbook import WORKBOOK
from dagster_backfills_tests.domains.kintell.sample import csv_text, mixed_rows, row, state
from dagster_backfills_tests.web.conftest import bearer, left_behind, work_off_runs

FIELDS = [
    "jobId", "fileName", "totalRows", "processedRows", "successfulRows", "failedRows", "status", "percentComplete",
    "message", "errorFilePath",
]  # fmt: skip


def send(doors, text, name="sessions.csv", path="/import/backfill/start", **options):
    data = text if isinstance(text, bytes) else text.encode()
    return doors.post(path, files={"file": (name, data)}, data=options, headers=bearer("imports"))


@pytest.mark.e2e
def test_a_file_is_uploaded_imported_watched_and_its_errors_fetched(doors, conn):
    started = send(doors, csv_text(mixed_rows(100)), onDuplicate="skip")
    assert started.status_code == 202, started.text
    job = started.json()
    assert [job[name] for name in FIELDS[1:5]] == ["sessions.csv", 100, 0, 0]
    assert (job["status"], job["missingUsers"], job["existing"]) == ("pending", 1, False)
    assert {"row": 20, "message": "Unknown session type: Chat"} in job["sampleErrors"]
    assert work_off_runs() == ["SUCCESS"]

    status = doors.get(f"/import/backfill/{job['jobId']}/status", headers=bearer("imports")).json()
    assert [status[name] for name in FIELDS[2:8]] == [100, 100, 90, 10, "completed", 100.0]
    assert status["message"] == "100 rows processed, 10 rejected."
    errors = doors.get(status["errorFilePath"], headers=bearer("imports"))
    assert errors.headers["content-type"] == "text/csv; charset=utf-8"
    assert errors.text.count("\r\n") == 11
    assert "Missing session_id" in errors.text
    asked = bearer("imports") | {"Accept": WORKBOOK}
    book = doors.get(status["errorFilePath"], headers=asked)
    assert book.headers["content-type"] == WORKBOOK
    assert openpyxl.load_workbook(io.BytesIO(book.content)).active.max_row == 11
    assert len(state(conn)["sessions"]) == 90
    newest = doors.get("/import/backfill", headers=bearer("imports")).json()["jobs"]
    assert [each["jobId"] for each in newest] == [job["jobId"]]


def test_a_file_that_is_uploaded_twice_is_one_job_and_one_run(doors, conn, place):
    first, second = send(doors, csv_text([row(1)])), send(doors, csv_text([row(1)]), name="again.csv")
    assert second.json()["existing"]
    assert [first.json()[name] for name in ("jobId", "runId")] == [
        second.json()[name] for name in ("jobId", "runId")
    ]
    assert [file.name for file in left_behind(place)] == ["sessions.csv"]


@pytest.mark.e2e
def test_an_import_is_resumed_with_its_own_file_or_without_one(doors, conn, place):
    good, bad = csv_text([row(1), row(2)]), csv_text([row(1), row(3)])
    job = send(doors, good).json()["jobId"]
    resume = f"/import/backfill/{job}/resume"
    assert send(doors, good, path=resume).status_code == 409  # its run has been launched
    conn.execute("truncate dagster.runs cascade")
    assert send(doors, bad, path=resume).json()["error"].startswith("This is not the file")
    [kept] = left_behind(place)
    kept.unlink()
    lost = doors.post(resume, headers=bearer("imports"))
    assert (lost.status_code, "does not exist" in lost.json()["error"]) == (422, True)
    assert send(doors, good, path=resume).status_code == 202
    assert [file.read_text() for file in left_behind(place)] == [good]
    conn.execute("truncate dagster.runs cascade")
    assert doors.post(resume, headers=bearer("imports")).status_code == 202
    assert work_off_runs() == ["SUCCESS"]
    assert len(state(conn)["sessions"]) == 2


@pytest.mark.e2e
def test_rejected_rows_are_replayed_and_the_import_rolled_back(doors, conn):
    job = send(doors, csv_text([row(1), row(2, participant_email="new@example.com")])).json()["jobId"]
    work_off_runs()
    at = f"/import/backfill/{job}"
    replayed = doors.post(f"{at}/replay", json={"createMissingUsers": True}, headers=bearer("imports"))
    assert replayed.status_code == 202
    assert doors.post(f"{at}/replay", headers=bearer("imports")).status_code == 409
    work_off_runs()
    assert len(state(conn)["sessions"]) == 2

    preview = doors.post(f"{at}/rollback", headers=bearer("imports"))
    assert (preview.status_code, preview.json()["removes"]) == (200, 2)
    assert len(state(conn)["sessions"]) == 2
    rolled = doors.post(f"{at}/rollback", json={"dryRun": False}, headers=bearer("imports"))
    assert rolled.status_code == 202
    assert work_off_runs() == ["SUCCESS"]
    assert state(conn)["sessions"] == []
    status = doors.get(f"{at}/status", headers=bearer("imports")).json()
    assert (status["status"], status["message"]) == ("rolled_back", "2 sessions removed, 0 restored, 0 kept.")


def test_an_import_is_paused_and_cancelled_if_its_state_allows_it(doors):
    job = send(doors, csv_text([row(1)])).json()["jobId"]
    refused = doors.post(f"/import/backfill/{job}/pause", headers=bearer("imports"))
    assert (refused.status_code, refused.json()["hint"]) == (409, "Only running jobs can.")
    cancelled = doors.post(f"/import/backfill/{job}/cancel", headers=bearer("imports"))
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert doors.post(f"/import/backfill/{job}/resume", headers=bearer("imports")).status_code == 409
    assert doors.post(f"/import/backfill/{job}/rollback", headers=bearer("imports")).status_code == 200


@pytest.mark.parametrize("job", ["nonsense", "00000000-0000-0000-0000-000000000000"])
def test_an_unknown_import_gets_404(doors, job):
    for method, verb in (("GET", "status"), ("GET", "errors"), ("POST", "cancel"), ("POST", "resume")):
        found = doors.request(method, f"/import/backfill/{job}/{verb}", headers=bearer("imports"))
        assert (found.status_code, set(found.json())) == (404, {"error", "hint", "requestId"})


@pytest.mark.parametrize(
    ("text", "name", "options", "code", "output"),
    [
        ("a,b\n1,2\n", "a.csv", {}, 422, "lacks the required columns session_id"),
        (b"\x1f\x8b broken", "a.csv.gz", {}, 422, "damaged gzip"),
        (csv_text([row(1)]), "a.csv", {"onDuplicate": "replace"}, 422, "on_duplicate"),
        (csv_text([row(1)]), "a.csv", {"batchRows": "0"}, 422, "batch_rows"),
        (csv_text([row(1)]), "a.csv", {"batchRows": "many"}, 422, "batchRows"),
        (csv_text([row(1)]), "a.csv", {"colour": "red"}, 422, "colour"),
        (csv_text([row(1)]), "../../etc/passwd.csv", {}, 400, "name is invalid"),
        (csv_text([row(1)]), "..\\a.csv", {}, 400, "name is invalid"),
        (csv_text([row(1)]), ".hidden", {}, 400, "name is invalid"),
        (csv_text([row(1)]), "a" * 300, {}, 400, "longer than 200 bytes"),
        ("x" * 300_001, "a.csv", {}, 413, "larger than 300,000 bytes"),
        (gzip.compress(b"x" * 70_000_000), "a.csv.gz", {}, 413, "unpacks to more than"),
    ],
)
def test_a_rejected_file_gets_a_reason_and_leaves_nothing(
    doors, conn, place, text, name, options, code, output
):
    refused = send(doors, text, name, **options)
    assert (refused.status_code, output in json.dumps(refused.json())) == (code, True), refused.text
    assert left_behind(place) == []
    assert conn.execute("select count(*) from kintell.backfill_jobs").fetchone() == (0,)
