"""The pages of progress: cohorts by school with their averages, a cohort's students."""

from urllib.parse import urlencode

import psycopg
import pytest
from starlette.testclient import TestClient

from dagster_backfills.web.pages import progress
from dagster_backfills_tests.web.pages.reading import Page
from dagster_backfills_tests.web.pages.seeds import HOSTILE, cohorts, students


def cohort(pages: TestClient, cohort_id: str, **more: str) -> Page:
    return Page(pages.get(f"/progress/cohort?{urlencode({'id': cohort_id, **more})}"))


def test_without_cohorts_the_page_says_so(pages: TestClient) -> None:
    assert "There are no cohorts yet." in Page(pages.get("/progress")).main


def test_cohorts_are_grouped_by_school_with_their_averages(
    pages: TestClient, conn: psycopg.Connection
) -> None:
    cohorts(conn, ["Algebra", "Botany"], "West")
    cohorts(conn, ["Chemistry"], "East")
    conn.execute("insert into progress.cohorts (id, school_id, name) values ('new', 'West', 'Drama')")
    conn.execute(
        "insert into backfill.stale_marks (asset, partition) values ('progress/cohort_stats', 'Botany')"
    )
    [_, east, chemistry, west, algebra, botany, drama] = Page(pages.get("/progress")).rows()
    assert (east, west) == ("East", "West")
    assert chemistry.startswith("Chemistry 0 % 0 % 30 12 200")
    assert algebra.startswith("Algebra 0 % 0 % 30")
    assert botany.startswith("Botany 37 % 37 % 30")
    assert botany.endswith("changed since")
    assert drama == "Drama not computed yet"


def test_a_cohort_is_found_by_part_of_its_name(pages: TestClient, conn: psycopg.Connection) -> None:
    cohorts(conn, ["Økonomi 50%", "Algebra"])
    assert "Økonomi 50%" in Page(pages.get("/progress", params={"find": "øKON"})).main
    assert "Økonomi 50%" in Page(pages.get("/progress", params={"find": "50%"})).main
    page = Page(pages.get("/progress", params={"find": HOSTILE}))
    assert f"No cohort’s name contains “{HOSTILE}”." in page.main


def test_many_cohorts_and_students_are_paginated(
    pages: TestClient, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "COHORTS", 3)
    monkeypatch.setattr(progress, "STUDENTS", 3)
    cohorts(conn, ["Same"] + [f"C{n}" for n in range(4)], "West")
    cohorts(conn, [f"C{n}" for n in range(5, 9)], "East")
    students(conn, "Same", ["Kim"] * 8)
    assert len(set(_walked(pages, "/progress", "/progress/cohort?"))) == 9
    seen, address = 0, "/progress/cohort?id=Same"
    while address:
        page = Page(pages.get(address))
        seen += len(page.rows()) - 1
        address = next((link for link in page.links if "after=" in link), "")
    assert seen == 8


def _walked(pages: TestClient, address: str, wanted: str) -> list[str]:
    found: list[str] = []
    while address:
        page = Page(pages.get(address))
        found += [link for link in page.links if link.startswith(wanted)]
        address = next((link for link in page.links if "after=" in link), "")
    return found


def test_a_cohort_shows_its_active_students_with_their_progress(
    pages: TestClient, conn: psycopg.Connection
) -> None:
    cohorts(conn, ["Algebra"])
    students(conn, "Algebra", ["Ada", "Ben", "Gone"])
    conn.execute("update progress.users set deleted_at = now() where name = 'Gone'")
    page = cohort(pages, "Algebra")
    assert page.all("dd")[0] == "0 %"
    [_, ada, ben] = page.rows()
    assert ada.startswith("Ada 0 % 0 % 0 0 2026-02-27 10:00:00 UTC")
    assert ben.startswith("Ben 9 % 9 % 17 8")


def test_a_cohort_without_students_or_statistics_says_so(pages: TestClient, conn: psycopg.Connection) -> None:
    conn.execute("insert into progress.schools values ('s', 'S')")
    conn.execute("insert into progress.cohorts (id, school_id, name) values ('c', 's', 'C')")
    page = cohort(pages, "c")
    assert "not been computed yet" in page.main
    assert "No active students." in page.main


@pytest.mark.parametrize("name", [HOSTILE, "../up", "a/b?c#d&e=f", "ü 日本", ".", "%00"])
def test_any_id_and_any_name_is_shown_and_linked(
    pages: TestClient, conn: psycopg.Connection, name: str
) -> None:
    cohorts(conn, [name], f"School {name}")
    students(conn, name, [name])
    answer = pages.get("/progress")
    assert HOSTILE not in answer.text
    [link] = [link for link in Page(answer).links if link.startswith("/progress/cohort?")]
    answer = pages.get(link)
    assert HOSTILE not in answer.text
    page = Page(answer)
    assert page.all("h1") == [name]
    assert page.rows()[1].startswith(name)


def test_an_unknown_cohort_gets_404(pages: TestClient) -> None:
    assert cohort(pages, "nope").status == 404
    assert cohort(pages, "\0").status == 404
