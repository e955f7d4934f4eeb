"""The pages of a coach's day: the coaches, and a coach's actions with reasons, open and done."""

from datetime import date

import psycopg
import pytest
from starlette.testclient import TestClient

from dagster_backfills.web.pages import coach_day
from dagster_backfills_tests.web.pages.reading import Page
from dagster_backfills_tests.web.pages.seeds import DAY, HOSTILE, actions


def test_before_the_first_scored_day_the_page_says_so(pages: TestClient) -> None:
    assert "No day has been computed yet." in Page(pages.get("/coach")).main


def test_the_newest_day_is_shown_with_every_coach(pages: TestClient, conn: psycopg.Connection) -> None:
    actions(conn, ["Ada", "Ben"], "coach-1", date(2026, 3, 1))
    actions(conn, ["Cem"], "coach-2")
    page = Page(pages.get("/coach"))
    assert page.all("caption") == ["Coaches and their actions on 2026-03-02"]
    assert page.rows()[1:] == ["coach-1 Riverside 0 0 0", "coach-2 Riverside 1 1 0"]
    page = Page(pages.get("/coach?day=2026-03-01"))
    assert page.rows()[1:] == ["coach-1 Riverside 2 1 0", "coach-2 Riverside 0 0 0"]


def test_actions_come_with_their_reasons_the_urgent_ones_first(
    pages: TestClient, conn: psycopg.Connection
) -> None:
    actions(conn, ["Ada", "Ben", "Cem", "Dan", "Eve", "Fay"])
    page = Page(pages.get("/coach?coach=coach-1"))
    assert page.all("h2") == ["Ada high", "Fay high", "Ben medium", "Cem medium", "Dan medium", "Eve low"]
    assert "Last visit 21 days ago; commitment 35 of 100, churn risk 70 of 100 (high)." in page.main
    assert "no visit in 14 days" in page.main


def test_an_action_is_marked_done_and_open_again(pages: TestClient, conn: psycopg.Connection) -> None:
    actions(conn, ["Ada", "Ben"])
    page = Page(pages.get("/coach?coach=coach-1"))
    form = next(form for form in page.forms if form.action == "/coach/done")
    for _ in range(2):  # marking it twice has no further effect
        page = Page(pages.post(form.action, data=form.fields))
    assert "1 of 2 done" in page.main
    assert "Done by local" in page.main
    [kept] = conn.execute(
        "select day, member_id, coach_id, done_by from scoring.coach_actions_done"
    ).fetchall()
    assert kept == (DAY, "coach-1-m0000", "coach-1", "local")
    form = next(form for form in page.forms if form.action == "/coach/reopen")
    page = Page(pages.post(form.action, data=form.fields))
    assert "0 of 2 done" in page.main


def test_an_unknown_action_can_not_be_marked_as_done(pages: TestClient, conn: psycopg.Connection) -> None:
    actions(conn, ["Ada"])
    form = {"day": DAY.isoformat(), "member": "nobody", "coach": "coach-1"}
    pages.post("/coach/done", data=form)
    assert conn.execute("select count(*) from scoring.coach_actions_done").fetchone() == (0,)
    assert pages.post("/coach/done", data={**form, "day": "tomorrow"}).status_code == 400


def test_recomputing_a_day_keeps_the_done_marks_and_deleting_a_member_deletes_them(
    pages: TestClient, conn: psycopg.Connection
) -> None:
    actions(conn, ["Ada"])
    form = Page(pages.get("/coach?coach=coach-1")).form("/done")
    pages.post(form.action, data=form.fields)
    conn.execute("create temporary table kept as select * from scoring.coach_actions")
    conn.execute("delete from scoring.coach_actions")
    assert "No actions on this day." in Page(pages.get(f"/coach?coach=coach-1&day={DAY}")).main
    conn.execute("insert into scoring.coach_actions select * from kept")
    assert "1 of 1 done" in Page(pages.get("/coach?coach=coach-1")).main
    conn.execute("delete from scoring.members")
    assert conn.execute("select count(*) from scoring.coach_actions_done").fetchone() == (0,)


def test_a_day_that_is_not_complete_says_why(pages: TestClient, conn: psycopg.Connection) -> None:
    actions(conn, ["Ada"])
    conn.execute(
        "insert into scoring.chain_days (asset, day, run_id, root_run_id, outcome, reason, expected, done, failed,"
        " finished_at) values ('scoring/coach_actions', %s, 'r', 'r', 'partial', 'Two have no score.', 3, 1, 2, now())",
        [DAY],
    )
    text = Page(pages.get("/coach?coach=coach-1")).main
    assert "are not complete: 1 of 3 done, 2 failed." in text
    assert "Two have no score." in text


def test_many_coaches_and_actions_are_paginated(
    pages: TestClient, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coach_day, "COACHES", 2)
    monkeypatch.setattr(coach_day, "ACTIONS", 3)
    for n in range(5):
        actions(conn, [f"M{at}" for at in range(10)], f"coach-{n}")
    seen, address = [], "/coach"
    while address:
        page = Page(pages.get(address))
        seen += [line.split()[0] for line in page.rows()[1:]]
        address = next((link for link in page.links if "after=" in link), "")
    assert seen == [f"coach-{n}" for n in range(5)]
    seen, address = [], "/coach?coach=coach-0"
    while address:
        page = Page(pages.get(address))
        seen += [line.split()[0] for line in page.all("h2")]
        form = next(form for form in page.forms if form.action == "/coach/done")
        after = pages.post(form.action, data=form.fields)  # done actions keep their place
        assert Page(after).all("h2") == page.all("h2")
        address = next((link for link in page.links if "after=" in link), "")
    assert sorted(seen) == sorted(f"M{at}" for at in range(10))


def test_hostile_names_are_escaped(pages: TestClient, conn: psycopg.Connection) -> None:
    actions(conn, [HOSTILE], coach=HOSTILE)
    answer = pages.get("/coach")
    assert HOSTILE not in answer.text
    [link] = [link for link in Page(answer).links if "coach=" in link]
    answer = pages.get(link)
    assert HOSTILE not in answer.text
    assert Page(answer).all("h1") == [HOSTILE]
    form = Page(answer).form("/done")
    assert "1 of 1 done" in Page(pages.post(form.action, data=form.fields)).main


def test_a_viewer_sees_no_buttons_and_changes_nothing(looking: TestClient, conn: psycopg.Connection) -> None:
    actions(conn, ["Ada"])
    page = Page(looking.get("/coach?coach=coach-1"))
    assert [form.method for form in page.forms] == ["get"]
    form = {"day": DAY.isoformat(), "member": "coach-1-m0000", "coach": "coach-1"}
    assert looking.post("/coach/done", data=form).status_code == 403
    assert conn.execute("select count(*) from scoring.coach_actions_done").fetchone() == (0,)


def test_an_unknown_coach_gets_404(pages: TestClient) -> None:
    assert Page(pages.get("/coach?coach=nobody")).status == 404
    assert Page(pages.get("/coach?day=yesterday")).status == 200
