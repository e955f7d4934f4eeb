"""The pages in a real browser: live updates, several tabs, the keyboard, and a lost connection."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dagster_backfills.domains.kintell.importing.importer import run_import
from dagster_backfills.domains.kintell.importing.jobs import Options
from dagster_backfills.domains.queue import queue
from dagster_backfills_tests.domains.kintell.sample import mixed_rows, row, write_csv
from dagster_backfills_tests.web.pages.seeds import (
    actions,
    claimed,
    cohorts,
    enqueued,
    imported,
    registered,
    students,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_PATIENCE = 60_000  # milliseconds, enough for a busy machine; no test depends on it

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"
    ),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox needs rights that containers lack. It only opens this machine's own pages.
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def browser(chromium: Any, served: str) -> Iterator[Any]:
    """A new browser whose pages have the server's address as base URL."""
    context = chromium.new_context(base_url=served)
    context.set_default_timeout(_PATIENCE)
    yield context
    context.close()


def opened(browser: Any, address: str) -> Any:
    page = browser.new_page()
    page.goto(address)
    return page


def test_a_file_is_dropped_checked_started_and_cancelled_while_it_runs(
    browser: Any, conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    page = opened(browser, "/imports")
    page.get_by_label("Session file").set_input_files(write_csv(tmp_path / "mine.csv", mixed_rows(4000)))
    page.get_by_role("button", name="Check the file").click()
    page.get_by_role("heading", name="What an import would do").wait_for()
    page.get_by_role("button", name="Start the import").click()
    page.get_by_text("Waiting for its run to start.").wait_for()
    [(job, place)] = conn.execute("select id, file_url from kintell.backfill_jobs").fetchall()

    # Its run begins, and then waits for a lock that another session holds.
    with psycopg.connect(database_url) as other:
        other.execute("insert into kintell.kintell_sessions (external_session_id, session_type, participant_id,"
                      " volunteer_id, scheduled_at, completed_at, duration_minutes) select 's-003000', 'mentorship',"
                      " min(id::text)::uuid, max(id::text)::uuid, now(), now(), 30 from kintell.users")  # fmt: skip
        options, ended = Options(batch_rows=500), []
        run = threading.Thread(
            target=lambda: ended.append(run_import(database_url, job, options, [str(Path(place).parent)]))
        )
        run.start()
        page.get_by_text("of 4,000 rows").wait_for()
        page.get_by_role("button", name="Pause").wait_for()
        page.locator("summary", has_text="Cancel").click()
        page.wait_for_timeout(1500)  # open details stay open when the page updates
        page.get_by_role("button", name="Cancel the import").click()
        page.locator(".lead .cancelled").wait_for()
        other.rollback()
        run.join(60)
    assert [each.status for each in ended] == ["cancelled"]
    page.get_by_role("link", name="Roll back").click()
    page.get_by_role("heading", name="Roll back this import?").wait_for()


def test_an_import_is_watched_to_its_end_and_its_errors_are_fetched(
    browser: Any, conn: psycopg.Connection, database_url: str, tmp_path: Path
) -> None:
    job = registered(conn, tmp_path / "x.csv", mixed_rows(1200))
    page = opened(browser, f"/imports/{job}")
    page.get_by_text("Waiting for its run to start.").wait_for()
    run_import(database_url, job, Options(), [str(tmp_path)])
    page.locator(".lead .completed").wait_for()  # it updated without a reload
    assert page.get_by_role("status").first.inner_text().strip() == "completed"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the error file").click()
    assert "_error_message" in Path(download.value.path()).read_text().splitlines()[0]
    page.get_by_label("Corrected file").set_input_files(write_csv(tmp_path / "mended.csv", [row(7000)]))
    page.get_by_role("button", name="Check the corrected file").click()
    page.get_by_role("heading", name="mended.csv").wait_for()


def test_two_tabs_stay_in_sync_and_a_processing_job_is_cancelled(
    browser: Any, conn: psycopg.Connection
) -> None:
    one, two = opened(browser, "/jobs"), opened(browser, "/jobs")
    one.get_by_text("There are no jobs.").wait_for()
    enqueued(conn)
    job = claimed(conn)
    for tab in (one, two):
        tab.bring_to_front()
        tab.get_by_role("heading", name="Processing 1").wait_for()
    queue.report_progress(conn, job, 40, "Chapter 2 of 5")
    for tab in (one, two):
        tab.bring_to_front()
        tab.get_by_text("Chapter 2 of 5").wait_for()
    two.locator("summary", has_text="Cancel").click()
    two.get_by_role("button", name="Cancel this job").click()
    one.bring_to_front()
    one.get_by_role("heading", name="Cancelled 1").wait_for()
    assert queue.report_progress(conn, job, 50, None) != "processing"

    # Closed, and opened again.
    enqueued(conn)
    again = claimed(conn)
    one.close()
    two.close()
    queue.complete(conn, [(again, {"title": "T"})])
    back = opened(browser, f"/jobs/{again.id}")
    back.locator(".lead .completed").wait_for()


def test_a_job_is_watched_on_its_page_and_the_focus_stays(browser: Any, conn: psycopg.Connection) -> None:
    job, events = enqueued(conn), []
    page = browser.new_page()
    page.on("response", lambda r: events.append(r.status) if "/api/jobs/events?id=" in r.url else None)
    page.goto(f"/jobs/{job}")
    summary = page.locator("summary", has_text="Cancel")
    summary.focus()
    held = claimed(conn)
    queue.report_progress(conn, held, 40, "Chapter 2 of 5")
    page.get_by_text("Chapter 2 of 5").wait_for()
    assert page.evaluate("document.activeElement.id") == f"cancel-{job}"
    assert events == [200]  # sent by the application
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".lead .cancelled").wait_for()


def test_cohorts_are_found_and_their_students_listed_by_keyboard(
    browser: Any, conn: psycopg.Connection
) -> None:
    cohorts(conn, ["Algebra", "Botany"])
    students(conn, "Botany", ["Ada", "Ben"])
    page = opened(browser, "/progress")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("bot")
    page.keyboard.press("Enter")
    page.wait_for_url("**/progress?find=bot")
    assert page.get_by_role("link", name="Algebra").count() == 0
    page.get_by_role("link", name="Botany").click()
    page.get_by_role("rowheader", name="Ben").wait_for()


def test_a_coach_marks_an_action_done_and_another_tab_shows_it(
    browser: Any, conn: psycopg.Connection
) -> None:
    actions(conn, ["Ada", "Ben"])
    one, two = opened(browser, "/coach?coach=coach-1"), opened(browser, "/coach?coach=coach-1")
    two.get_by_role("button", name="Mark as done").first.click()
    two.get_by_text("1 of 2 done").wait_for()
    one.bring_to_front()
    one.get_by_text("1 of 2 done").wait_for()


def test_an_upload_continues_after_a_lost_connection(browser: Any, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "large.csv", [row(n, feedback_text="x" * 400) for n in range(8000)])
    page, cuts, pieces = opened(browser, "/imports"), [0], []

    def cut(route: Any) -> None:
        pieces.append(route.request.headers["content-range"])
        if len(pieces) in (2, 3):
            cuts[0] += 1
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route(
        "**/import/backfill/uploads/*", lambda r: cut(r) if r.request.method == "PUT" else r.continue_()
    )
    page.get_by_label("Session file").set_input_files(file)
    page.get_by_role("button", name="Check the file").click()
    page.get_by_role("heading", name="What an import would do").wait_for()
    assert cuts == [2]
    assert pieces[1] == pieces[2] == pieces[3]
    assert page.locator("dd").first.inner_text() == "8,000"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen(
    browser: Any, conn: psycopg.Connection, database_url: str, tmp_path: Path, width: int
) -> None:
    name = "a-very-long-name-" * 8
    job = imported(conn, database_url, tmp_path / f"{name}.csv", mixed_rows(100))
    failed = enqueued(conn, name)
    queue.fail(conn, claimed(conn), "Bad", name * 5, name * 20, False)
    cohorts(conn, [name], name)
    students(conn, name, [name])
    actions(conn, [name], name)
    page = browser.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    for address in (
        "/imports", f"/imports/{job.id}", f"/imports/{job.id}/rollback", "/jobs", f"/jobs/{failed}", "/progress",
        f"/progress/cohort?id={name}", "/coach", f"/coach?coach={name}", "/jobs/nope",
    ):  # fmt: skip
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
