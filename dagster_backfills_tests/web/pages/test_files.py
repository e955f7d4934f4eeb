"""Uploading a file without JavaScript: choose, check, then start or discard it."""

import gzip
from pathlib import Path

import psycopg
from starlette.testclient import TestClient

from dagster_backfills.domains.kintell.file.files import FileError
from dagster_backfills.domains.kintell.importing.importer import run_import
from dagster_backfills.domains.kintell.importing.jobs import Options
from dagster_backfills.web.pages.checking import Check, Checks
from dagster_backfills_tests.domains.kintell.sample import csv_text, mixed_rows, row
from dagster_backfills_tests.web.pages.reading import Page
from dagster_backfills_tests.web.pages.seeds import HOSTILE, imported


def send(pages: TestClient, text: str, name: str = "sessions.csv") -> Page:
    """Uploads a file, and returns the page with its dry run."""
    return Page(pages.post("/imports", files={"file": (name, text.encode())}))


def left(folder: Path) -> list[Path]:
    return [file for file in (folder / "spool").rglob("*") if file.is_file()]


def test_a_file_is_checked_before_anything_is_imported(pages: TestClient, conn: psycopg.Connection) -> None:
    page = send(pages, csv_text(mixed_rows(300)))
    assert page.all("h1") == ["sessions.csv"]
    assert page.all("dd")[:4] == ["300", "270", "0", "30"]
    assert "Unknown session type 4" in page.rows()
    assert "20 Unknown session type: Chat" in page.rows()
    assert "nobody@example.com participant" in page.main
    assert conn.execute("select count(*) from kintell.backfill_jobs").fetchone() == (0,)
    assert conn.execute("select count(*) from kintell.kintell_sessions").fetchone() == (0,)


def test_a_checked_file_becomes_an_import_with_the_chosen_options(
    pages: TestClient, conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    imported(conn, database_url, tmp_path / "before.csv", [row(1, rating="1")])
    page = send(pages, csv_text([row(1, rating="5"), row(2)]))
    assert page.all("dd")[:4] == ["2", "1", "1, 1 of them different", "0"]
    assert page.form("/start").fields["on_duplicate"] in ("skip", "update", "error")
    shown = pages.post(page.form("/start").action, data={"on_duplicate": "update"})
    assert Page(shown).all("h1") == ["sessions.csv"]
    [job, url] = conn.execute(
        "select id, file_url from kintell.backfill_jobs where status = 'pending'"
    ).fetchone()  # type: ignore[misc]
    assert shown.url.path == f"/imports/{job}"
    done = run_import(database_url, job, Options(), [str(Path(url).parent)])
    assert (done.inserted_rows, done.updated_rows, done.file_name) == (1, 1, "sessions.csv")
    assert left(tmp_path) == []


def test_a_discarded_file_leaves_nothing(pages: TestClient, conn: psycopg.Connection, tmp_path: Path) -> None:
    page = send(pages, csv_text([row(1)]))
    assert left(tmp_path)
    page = Page(pages.post(page.form("/discard").action))
    assert page.all("h1") == ["Imports"]
    assert left(tmp_path) == []
    assert conn.execute("select count(*) from kintell.backfill_jobs").fetchone() == (0,)


def test_the_same_content_sent_twice_is_one_import(pages: TestClient, conn: psycopg.Connection) -> None:
    first = send(pages, csv_text([row(1)]))
    pages.post(first.form("/start").action)
    again = send(pages, csv_text([row(1)]), "other.csv")
    page = Page(pages.post(again.form("/start").action))
    assert "This file was sent before" in page.main
    assert conn.execute("select count(*) from kintell.backfill_jobs").fetchone() == (1,)


def test_a_file_that_cannot_be_read_is_explained_by_its_own_name(pages: TestClient) -> None:
    page = send(pages, "session_id;rating\n1;2\n", "my sessions.csv")
    assert page.status == 422
    assert "session_type" in page.main
    assert ".part" not in page.main


def test_no_file_and_an_empty_one_are_refused(pages: TestClient) -> None:
    for files in ({"file": ("", b"")}, {"file": ("empty.csv", b"")}, {"other": ("x.csv", b"a")}):
        page = Page(pages.post("/imports", files=files))
        assert page.status == 400
        assert page.all("h1") == ["Something went wrong"]


def test_many_files_in_one_form_are_refused(pages: TestClient, tmp_path: Path) -> None:
    files = [("file", (f"{n}.csv", b"a")) for n in range(5)]
    assert pages.post("/imports", files=files).status_code == 400
    assert left(tmp_path) == []


def test_hostile_names_and_values_are_escaped(pages: TestClient) -> None:
    answer = pages.post(
        "/imports", files={"file": (HOSTILE.replace("/", ""), csv_text([row(1, rating=HOSTILE)]).encode())}
    )
    assert "<script>alert" not in answer.text
    assert f"Invalid rating: {HOSTILE}" in Page(answer).main


def test_a_file_that_unpacks_to_far_more_than_text_is_not_checked(pages: TestClient) -> None:
    bomb = gzip.compress(csv_text([row(1)]).encode() + b"\n" * 70_000_000)
    answer = pages.post("/imports", files={"file": ("a.csv.gz", bomb)})
    page = Page(answer)
    assert (page.status, "a.csv.gz unpacks to more than 67,108,864 bytes" in page.main) == (413, True)


def test_an_unknown_upload_gets_404(pages: TestClient) -> None:
    assert Page(pages.get("/imports/files/0123")).status == 404
    assert Page(pages.post("/imports/files/0123/start")).status == 404


def test_an_endless_form_is_refused(pages: TestClient) -> None:
    assert pages.post("/imports/x/cancel", data={"a": "x" * 20_000}).status_code == 400


def test_a_check_is_repeated_after_a_database_error_but_not_after_a_file_error(
    database_url: str, tmp_path: Path
) -> None:
    checks, answers = Checks(), [OSError("away"), None, None]

    def database() -> psycopg.Connection:
        if trouble := answers.pop(0):
            raise trouble
        return psycopg.connect(database_url)

    def check(upload: str, text: str) -> Check:
        path = tmp_path / upload
        path.write_text(text)
        found = checks.of(upload, len(text), database, path)
        assert found.ended.wait(60)
        return found

    assert isinstance(check("good", csv_text([row(1)])).error, OSError)
    assert check("good", csv_text([row(1)])).verdict is not None
    bad = check("bad", "nothing")
    assert isinstance(bad.error, FileError)
    assert check("bad", "nothing") is bad
