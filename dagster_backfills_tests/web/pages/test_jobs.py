"""The pages of background jobs without JavaScript: by state, one state page by page, one job."""

import psycopg
import pytest
from starlette.testclient import TestClient

from dagster_backfills.domains.queue import queue
from dagster_backfills.web.pages import jobs
from dagster_backfills_tests.web.pages.reading import Page
from dagster_backfills_tests.web.pages.seeds import HOSTILE, claimed, enqueued, every_state


def walked(pages: TestClient, address: str) -> list[str]:
    """The IDs of a list's jobs over all of its pages."""
    found: list[str] = []
    while address:
        page = Page(pages.get(address))
        found += [link.removeprefix("/jobs/") for link in page.links if link.startswith("/jobs/")]
        address = next((link for link in page.links if "after=" in link), "")
    return found


def test_an_empty_queue_says_so(pages: TestClient) -> None:
    page = Page(pages.get("/jobs"))
    assert "There are no jobs." in page.main
    assert "No failed jobs." in Page(pages.get("/jobs?status=failed")).main


def test_jobs_are_grouped_by_state_with_counts(pages: TestClient, conn: psycopg.Connection) -> None:
    every_state(conn)
    enqueued(conn)
    page = Page(pages.get("/jobs"))
    assert page.all("h2") == [
        "Processing 1", "Pending 2", "Failed 1", "Completed 1 in the last 24 hours", "Cancelled 1 in the last 24 hours",
    ]  # fmt: skip
    assert "40 % Chapter 2 of 5" in page.main
    assert "https://example.org/a.mp4 is not there (404)." in page.main


@pytest.mark.parametrize("state", ["pending", "failed", "cancelled", "processing", "completed"])
def test_a_long_list_of_one_state_is_paginated(
    pages: TestClient, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(jobs, "LISTED", 3)
    made = [str(enqueued(conn, priority=1 + n % 3)) for n in range(8)]
    if state == "cancelled":
        conn.execute("select jobs.cancel_job(id, null) from jobs.background_jobs")
    elif state != "pending":
        held = [claimed(conn) for _ in made]
        if state == "failed":
            for job in held:
                queue.fail(conn, job, "Bad", "It is bad.", "", False)
        elif state == "completed":
            queue.complete(conn, [(job, {}) for job in held])
    found = walked(pages, f"/jobs?status={state}")
    assert sorted(found) == sorted(made)
    if state == "pending":  # in the order in which they are claimed
        assert found == [made[n] for n in (0, 3, 6, 1, 4, 7, 2, 5)]


def test_a_job_claimed_meanwhile_does_not_end_the_list(
    pages: TestClient, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LISTED", 2)
    made = [str(enqueued(conn)) for _ in range(4)]
    page = Page(pages.get("/jobs?status=pending"))
    [following] = [link for link in page.links if "after=" in link]
    for _ in range(2):
        claimed(conn)
    assert walked(pages, following) == made[2:]


def test_a_failed_job_that_is_retried_does_not_end_the_list(
    pages: TestClient, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LISTED", 2)
    for _ in range(4):
        enqueued(conn)
        queue.fail(conn, claimed(conn), "Bad", "It is bad.", "", False)
    page = Page(pages.get("/jobs?status=failed"))
    [following] = [link for link in page.links if "after=" in link]
    pages.post(page.forms[1].action)
    assert len(walked(pages, following)) == 2


def test_a_waiting_and_a_working_job_are_cancelled_from_the_list(
    pages: TestClient, conn: psycopg.Connection
) -> None:
    ids = every_state(conn)
    for state in ("pending", "processing"):
        page = Page(pages.get("/jobs"))
        form = page.form(f"/jobs/{ids[state]}/cancel")
        answer = pages.post(form.action, data=form.fields)
        assert answer.url.path == "/jobs"
    assert "Cancelled 3 in the last 24 hours" in Page(pages.get("/jobs")).all("h2")


def test_a_failed_job_is_retried_from_its_page(pages: TestClient, conn: psycopg.Connection) -> None:
    job = every_state(conn)["failed"]
    page = Page(pages.get(f"/jobs/{job}"))
    assert "MediaError https://example.org/a.mp4 is not there (404)." in page.main
    form = page.form("/retry")
    page = Page(pages.post(form.action, data=form.fields))
    assert "Waiting for a worker" in page.main


def test_an_action_that_is_no_longer_possible_gets_an_error_page(
    pages: TestClient, conn: psycopg.Connection
) -> None:
    ids = every_state(conn)
    page = Page(pages.post(f"/jobs/{ids['completed']}/cancel"))
    assert page.status == 409
    assert "is already completed" in page.main
    assert Page(pages.post(f"/jobs/{ids['pending']}/retry")).status == 409


def test_the_previous_and_next_jobs_of_a_chain_are_linked(
    pages: TestClient, conn: psycopg.Connection
) -> None:
    first = enqueued(conn, then=[queue.Step("mux_upload", {"video_url": "https://example.org/a.mp4"})])
    queue.complete(conn, [(claimed(conn), {"title": "T"})])
    [following] = conn.execute(
        "select id from jobs.background_jobs where parent_id = %s", [first]
    ).fetchone() or [0]
    assert f"/jobs/{following}" in Page(pages.get(f"/jobs/{first}")).links
    assert f"/jobs/{first}" in Page(pages.get(f"/jobs/{following}")).links


def test_hostile_inputs_and_messages_are_escaped(pages: TestClient, conn: psycopg.Connection) -> None:
    job = enqueued(conn, HOSTILE)
    queue.fail(conn, claimed(conn), HOSTILE, HOSTILE, HOSTILE, False)
    for address in ("/jobs", f"/jobs/{job}"):
        answer = pages.get(address)
        assert HOSTILE not in answer.text
        assert HOSTILE in Page(answer).main


def test_a_button_redirects_only_to_its_own_page(pages: TestClient, conn: psycopg.Connection) -> None:
    for back, then in (
        ("/jobs?status=pending", "/jobs"),
        ("https://example.org/", None),
        ("//example.org", None),
    ):
        job = enqueued(conn)
        answer = pages.post(f"/jobs/{job}/cancel", data={"back": back}, follow_redirects=False)
        assert answer.headers["location"] == (back if then else f"/jobs/{job}")


def test_a_viewer_sees_no_buttons_and_changes_nothing(looking: TestClient, conn: psycopg.Connection) -> None:
    ids = every_state(conn)
    assert Page(looking.get("/jobs")).forms == []
    assert Page(looking.get(f"/jobs/{ids['failed']}")).forms == []
    assert looking.post(f"/jobs/{ids['pending']}/cancel").status_code == 403
    assert conn.execute(
        "select status from jobs.background_jobs where id = %s", [ids["pending"]]
    ).fetchone() == ("pending",)


def test_an_unknown_job_gets_404(pages: TestClient) -> None:
    for wanted in ("nope", "00000000-0000-0000-0000-000000000000"):
        assert Page(pages.get(f"/jobs/{wanted}")).status == 404
