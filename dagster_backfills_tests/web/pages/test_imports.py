"""The pages of imports without JavaScript: the list, a running import, rejected rows, rollback."""

import csv
import io
from pathlib import Path

import psycopg
import pytest
from starlette.testclient import TestClient

from dagster_backfills.web.pages import imports
from dagster_backfills_tests.domains.kintell.sample import mixed_rows, row
from dagster_backfills_tests.web.pages.reading import Page
from dagster_backfills_tests.web.pages.seeds import HOSTILE, imported, registered


def status(conn: psycopg.Connection, job: object) -> str:
    [found] = conn.execute("select status from kintell.backfill_jobs where id = %s", [job]).fetchone() or [""]
    return str(found)


def running(conn: psycopg.Connection, job: object, seconds_silent: int = 0) -> None:
    conn.execute(
        "update kintell.backfill_jobs set status = 'running', activity = 'import', started_at = now(), attempt = 1,"
        " heartbeat_at = clock_timestamp() - make_interval(secs => %s) where id = %s",
        [seconds_silent, job],
    )


def test_without_imports_the_page_says_so_and_accepts_a_file(pages: TestClient) -> None:
    page = Page(pages.get("/imports"))
    assert "Nothing has been imported yet." in page.main
    assert page.form("/imports").fields.keys() == {"file"}


def test_imports_are_listed_newest_first_with_their_counts(
    pages: TestClient, conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    imported(conn, database_url, tmp_path / "old.csv", mixed_rows(1200))
    registered(conn, tmp_path / "new.csv", [row(n) for n in range(5000, 5010)])
    [_, newest, oldest] = Page(pages.get("/imports")).rows()
    assert newest.startswith("new.csv pending 10 0 0")
    assert oldest.startswith("old.csv completed 1,200 1,080 120")


def test_a_long_list_is_paginated_without_gaps(
    pages: TestClient, conn: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(5):
        registered(conn, tmp_path / f"{n}.csv", [row(n)])
    # Registered at the same time: ordered by ID.
    conn.execute("update kintell.backfill_jobs set created_at = '2026-01-01T00:00Z'")
    monkeypatch.setattr(imports, "LISTED", 2)
    seen, address = [], "/imports"
    while address:
        page = Page(pages.get(address))
        seen += [line.split()[0] for line in page.rows()[1:]]
        address = next((link for link in page.links if link.startswith("/imports?after=")), "")
    assert sorted(seen) == [f"{n}.csv" for n in range(5)]


def test_a_hostile_file_name_is_escaped(pages: TestClient, conn: psycopg.Connection, tmp_path: Path) -> None:
    job = registered(conn, tmp_path / "x.csv", [row(1)])
    conn.execute("update kintell.backfill_jobs set file_name = %s", [HOSTILE])
    for address in ("/imports", f"/imports/{job}"):
        answer = pages.get(address)
        assert HOSTILE not in answer.text
        assert HOSTILE in Page(answer).main
        assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_rejected_rows_are_shown_page_by_page_and_downloaded_whole(
    pages: TestClient,
    conn: psycopg.Connection,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row(n, rating=HOSTILE if n % 2 else "") for n in range(50)]
    job = imported(conn, database_url, tmp_path / "x.csv", rows)
    monkeypatch.setattr(imports, "ERRORS", 10)
    page = Page(pages.get(f"/imports/{job.id}"))
    numbers = [int(line.split()[0]) for line in page.rows()[1:]]
    assert numbers == list(range(2, 21, 2))
    assert f"Invalid rating: {HOSTILE}" in page.main
    following = Page(pages.get(f"/imports/{job.id}?after=20"))
    assert [int(line.split()[0]) for line in following.rows()[1:]] == list(range(22, 41, 2))
    assert f"/imports/{job.id}?after=20#rejected" in page.links

    answer = pages.get(f"/imports/{job.id}/errors.csv")
    assert answer.headers["content-disposition"] == f'attachment; filename="errors-{job.id}.csv"'
    sent = list(csv.DictReader(io.StringIO(answer.text)))
    assert [line["_error_row"] for line in sent] == [str(n) for n in range(2, 51, 2)]
    assert {line["_error_message"] for line in sent} == {f"Invalid rating: {HOSTILE}"}


def test_a_running_import_is_paused_and_cancelled_from_its_page(
    pages: TestClient, conn: psycopg.Connection, tmp_path: Path
) -> None:
    job = registered(conn, tmp_path / "x.csv", [row(n) for n in range(10)])
    running(conn, job)
    page = Page(pages.get(f"/imports/{job}"))
    assert "0 of 10 rows (0 %)" in page.main
    pages.post(page.form("/pause").action)
    assert status(conn, job) == "paused"
    conn.execute("update kintell.backfill_jobs set activity = null")
    page = Page(pages.get(f"/imports/{job}"))
    assert [form.action.rsplit("/", 1)[-1] for form in page.forms if str(job) in form.action] == [
        "resume",
        "cancel",
    ]
    page = Page(pages.post(page.form("/cancel").action))
    assert status(conn, job) == "cancelled"
    assert "cancelled" in page.main


def test_an_action_that_is_no_longer_possible_gets_an_error_page(
    pages: TestClient, conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    job = imported(conn, database_url, tmp_path / "x.csv", [row(1)])
    page = Page(pages.post(f"/imports/{job.id}/cancel"))
    assert page.status == 409
    assert f"Job {job.id} is completed and can't be cancelled" in page.main


def test_an_import_without_heartbeat_is_reported_and_can_be_resumed(
    pages: TestClient, conn: psycopg.Connection, tmp_path: Path
) -> None:
    job = registered(conn, tmp_path / "x.csv", [row(n) for n in range(10)])
    running(conn, job, seconds_silent=300)
    page = Page(pages.get(f"/imports/{job}"))
    assert "no heartbeat for 5 min 0 s" in page.main
    assert page.form("/resume").method == "post"
    running(conn, job)
    page = Page(pages.get(f"/imports/{job}"))
    assert "no heartbeat" not in page.main
    assert not [form for form in page.forms if form.action.endswith("/resume")]


def test_a_rollback_first_shows_a_preview(
    pages: TestClient, conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    job = imported(conn, database_url, tmp_path / "x.csv", [row(n) for n in range(20)])
    conn.execute(
        "update kintell.kintell_sessions set rating = 1, updated_at = now() where external_session_id = 's-000003'"
    )
    page = Page(pages.get(f"/imports/{job.id}"))
    assert f"/imports/{job.id}/rollback" in page.links
    page = Page(pages.get(f"/imports/{job.id}/rollback"))
    assert page.all("dd") == ["19", "0", "1"]
    assert "s-000003" in page.main
    assert status(conn, job.id) == "completed"
    assert conn.execute("select count(*) from kintell.kintell_sessions").fetchone() == (20,)


def test_a_viewer_sees_no_buttons_and_changes_nothing(
    looking: TestClient, conn: psycopg.Connection, tmp_path: Path
) -> None:
    job = registered(conn, tmp_path / "x.csv", [row(1)])
    for address in ("/imports", f"/imports/{job}", f"/imports/{job}/rollback"):
        assert Page(looking.get(address)).forms == []
    assert looking.post(f"/imports/{job}/cancel").status_code == 403
    assert looking.post("/imports", files={"file": ("x.csv", b"a")}).status_code == 403
    assert status(conn, job) == "pending"


def test_an_unknown_import_gets_404(pages: TestClient) -> None:
    for wanted in ("nope", "00000000-0000-0000-0000-000000000000"):
        page = Page(pages.get(f"/imports/{wanted}"))
        assert page.status == 404
        assert f"There is no import job {wanted}." in page.main
