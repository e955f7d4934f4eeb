"""Resumable uploads, and invalid ones: these are rejected as a whole and leave nothing."""

import hashlib
import os
import time

import pytest

from dagster_backfills.web.settings import Limits
from dagster_backfills_tests.domains.kintell.sample import csv_text, row, state
from dagster_backfills_tests.web.conftest import SMALL, bearer, left_behind, work_off_runs

UPLOADS = "/import/backfill/uploads"
TEXT = csv_text([row(n) for n in range(500)]).encode()
SIZE = len(TEXT)


def begin(doors, size=SIZE, name="large.csv", scope="imports"):
    return doors.post(UPLOADS, json={"fileName": name, "size": size}, headers=bearer(scope))


def put(doors, place, first, data, total=SIZE):
    headers = {"Content-Range": f"bytes {first}-{first + len(data) - 1}/{total}"}
    return doors.put(place, content=data, headers=bearer("imports") | headers)


def start(doors, upload_id):
    return doors.post("/import/backfill/start", json={"uploadId": upload_id}, headers=bearer("imports"))


@pytest.mark.e2e
def test_an_upload_in_pieces_continues_after_an_interruption(doors, conn, place):
    upload = begin(doors)
    at, upload_id = upload.headers["Location"], upload.json()["uploadId"]
    assert put(doors, at, 0, TEXT[:10_000]).json()["offset"] == 10_000
    assert start(doors, upload_id).headers["Upload-Offset"] == "10000"

    stands = doors.head(at, headers=bearer("imports"))
    assert [stands.headers[name] for name in ("Upload-Offset", "Upload-Length")] == ["10000", str(SIZE)]
    assert put(doors, at, 0, TEXT[:10_000]).status_code == 409
    assert put(doors, at, 10_000, TEXT[10_000:]).json()["offset"] == len(TEXT)

    assert start(doors, upload_id).json()["fileName"] == "large.csv"
    [kept] = left_behind(place)
    assert hashlib.sha256(kept.read_bytes()).digest() == hashlib.sha256(TEXT).digest()
    assert start(doors, upload_id).status_code == 404
    assert work_off_runs() == ["SUCCESS"]
    assert len(state(conn)["sessions"]) == 500


@pytest.mark.parametrize(
    ("content_range", "data", "code"),
    [
        ("bytes 0-9/20", b"x" * 9, 400),  # shorter than it says
        ("bytes 0-9/20", b"x" * 11, 400),  # longer
        ("bytes 0-9/30", b"x" * 10, 416),
        ("bytes 9-0/20", b"x" * 10, 416),
        ("bytes 0-20/20", b"x" * 21, 416),
        ("bytes -1-9/20", b"x" * 10, 416),
        ("lines 0-9/20", b"x" * 10, 416),
        (f"bytes 0-{10**16}/{10**16}", b"x" * 10, 416),
    ],
)
def test_a_piece_that_does_not_match_its_range_is_refused(doors, content_range, data, code):
    at = begin(doors, 20).headers["Location"]
    headers = bearer("imports") | {"Content-Range": content_range}
    assert doors.put(at, content=data, headers=headers).status_code == code
    assert int(doors.head(at, headers=bearer("imports")).headers["Upload-Offset"]) <= 9


@pytest.mark.parametrize(
    ("size", "name", "code"),
    [(0, "a.csv", 400), (300_001, "a.csv", 413), (1, "../a.csv", 400), (1, "a\0.csv", 400), ("x", "a.csv", 422)],
)  # fmt: skip
def test_an_invalid_upload_is_not_created(doors, place, size, name, code):
    assert begin(doors, size, name).status_code == code
    assert left_behind(place) == []


def test_an_upload_of_another_owner_gets_404(doors, open_doors):
    upload = begin(doors).json()["uploadId"]
    local = open_doors()
    for method in ("GET", "PUT", "DELETE"):
        assert local.request(method, f"{UPLOADS}/{upload}").status_code == 404
    assert local.post("/import/backfill/start", json={"uploadId": upload}).status_code == 404
    for strange in ("../../etc/passwd", "%2e%2e%2fpasswd", "0" * 32):
        assert doors.get(f"{UPLOADS}/{strange}", headers=bearer("imports")).status_code == 404


def test_abandoned_uploads_are_deleted_and_their_number_is_limited(open_doors, place):
    doors = open_doors(client="10.0.0.9", limits=SMALL.model_copy(update={"uploads_open": 2}))
    first = begin(doors).headers["Location"]
    begin(doors)
    assert begin(doors).status_code == 429
    for file in left_behind(place):
        os.utime(file, (time.time() - 90_000,) * 2)
    assert begin(doors).status_code == 201
    assert doors.get(first, headers=bearer("imports")).status_code == 404
    assert len(left_behind(place)) == 2


def test_an_upload_is_deleted(doors, place):
    at = begin(doors).headers["Location"]
    assert doors.delete(at, headers=bearer("imports")).status_code == 204
    assert left_behind(place) == []


def form(*parts, boundary="B"):
    parts = "".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n" for head, body in parts
    )
    return f"{parts}--{boundary}--\r\n".encode()


FILE = ('name="file"; filename="a.csv"', "session_id\r\n1")
HOSTILE = {
    "ten thousand parts": form(*[(f'name="f{n}"', "x") for n in range(10_000)], FILE),
    "two files": form(FILE, FILE),
    "a path on Windows": form(('name="file"; filename="C:\\x\\a.csv"', "1")),
    "a name in another coding": form(("name=\"file\"; filename*=utf-8''..%2Fa.csv", "1"), FILE),
    "a long field": form(('name="onDuplicate"', "x" * 100_000), FILE),
    "a long header": form((f'name="{"x" * 100_000}"', "1"), FILE),
    "cut in the middle": form(FILE)[:-20],
    "nothing": b"",
    "no form": b"session_id,date\r\n" * 100,
    "no file": form(('name="onDuplicate"', "skip")),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_an_invalid_form_is_refused_and_leaves_nothing(open_doors, place, conn, body):
    doors = open_doors(client="10.0.0.9", limits=Limits())
    message = bearer("imports") | {"Content-Type": "multipart/form-data; boundary=B"}
    refused = doors.post("/import/backfill/start", content=body, headers=message)
    assert refused.status_code in (400, 422), refused.text
    assert left_behind(place) == []
    assert conn.execute("select count(*) from kintell.backfill_jobs").fetchone() == (0,)


def test_a_body_that_is_not_a_small_json_object_is_refused(doors):
    jobs = bearer("jobs")
    deep = b"[" * 100_000
    for body, code in ((b"[]", 400), (b"{", 400), (b'{"a": NaN}', 400), (deep, 400), (b"x" * 1_100_000, 413)):
        assert doors.post("/api/jobs", content=body, headers=jobs).status_code == code


def test_a_large_body_is_accepted_only_for_files(open_doors):
    doors = open_doors(client="10.0.0.9", limits=Limits())
    for path in ("start", "00000000-0000-0000-0000-000000000000/resume", "uploads"):
        at = f"/import/backfill/{path}"
        assert doors.post(at, content=b" " * 1_100_000, headers=bearer("imports")).status_code == 413
