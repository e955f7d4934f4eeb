"""Every page: all links have targets, a screen reader can use it, and colours have enough contrast."""

import re
from pathlib import Path

import psycopg
import pytest
from starlette.routing import Match
from starlette.testclient import TestClient

from dagster_backfills_tests.domains.kintell.sample import csv_text, mixed_rows
from dagster_backfills_tests.web.pages.reading import Page
from dagster_backfills_tests.web.pages.seeds import actions, cohorts, every_state, imported, students

STYLES = Path(__file__).parents[3] / "dagster_backfills" / "web" / "static" / "pages.css"
# Pairs of colours and their minimum contrast (WCAG 2.2: text 4.5, borders of controls 3).
CONTRASTS = [
    *((text, ground, 4.5) for text in ("ink", "soft", "accent") for ground in ("ground", "raised")),
    *((text, "ground", 4.5) for text in ("good", "bad", "warn", "busy")),
    ("on-accent", "accent", 4.5), ("ink", "bad-ground", 4.5), ("bad", "raised", 4.5), ("edge", "ground", 3.0),
]  # fmt: skip


@pytest.fixture
def whole(conn: psycopg.Connection, database_url: str, tmp_path: Path) -> None:
    """Inserts data for every page."""
    imported(conn, database_url, tmp_path / "x.csv", mixed_rows(200))
    every_state(conn)
    cohorts(conn, ["Algebra"])
    students(conn, "Algebra", ["Ada", "Ben"])
    actions(conn, ["Ada", "Ben"])


def crawled(pages: TestClient) -> dict[str, Page]:
    """Every linked page by its address, and the page of an uploaded file."""
    sent = pages.post("/imports", files={"file": ("y.csv", csv_text(mixed_rows(100)).encode())})
    found = {str(sent.url.path): Page(sent)}
    left = ["/"]
    while left:
        address = left.pop()
        if address in found:
            continue
        answer = pages.get(address)
        assert answer.status_code == 200, address
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        found[address] = page = Page(answer)
        left += [link.split("#")[0] or address for link in page.links]
    return found


@pytest.mark.usefixtures("whole")
def test_every_link_and_form_has_a_target(pages: TestClient) -> None:
    found = crawled(pages)
    assert len(found) > 20
    for address, page in found.items():
        for form in page.forms:
            scope = {"type": "http", "path": form.action, "method": form.method.upper(), "root_path": ""}
            routed = [route.matches(scope)[0] for route in pages.app.routes]  # type: ignore[attr-defined]
            assert Match.FULL in routed, f"{address}: {form}"
        for link in page.links:
            if link.startswith("#"):
                assert link[1:] in page.ids, f"{address}: {link}"


@pytest.mark.usefixtures("whole")
def test_every_page_is_accessible_to_a_screen_reader(pages: TestClient) -> None:
    found = crawled(pages)
    assert {address: page.mistakes for address, page in found.items() if page.mistakes} == {}
    for page in found.values():
        tags = [tag for tag, _ in page.attributes]
        assert {"header", "nav", "main"} <= set(tags)
        assert ("html", {"lang": "en"}) in page.attributes
        assert page.links[2] == "#main" or "#main" in page.links


@pytest.mark.usefixtures("whole")
def test_empty_pages_are_complete(pages: TestClient, conn: psycopg.Connection) -> None:
    conn.execute("truncate kintell.backfill_jobs, jobs.background_jobs, jobs.job_queue, progress.schools,"
                 " scoring.coach_actions, scoring.gyms cascade")  # fmt: skip
    for page in crawled(pages).values():
        assert page.mistakes == []


def test_an_error_page_looks_like_any_other(pages: TestClient) -> None:
    page = Page(pages.get("/jobs/nope"))
    assert page.mistakes == []
    assert "/jobs" in page.links


def test_every_rejected_request_for_a_page_gets_a_page_with_the_request_id(
    pages: TestClient, looking: TestClient
) -> None:
    for answer in (pages.get("/nothing"), looking.post("/jobs/nope/retry"), looking.put("/jobs")):
        page = Page(answer)
        assert (page.status, page.all("h1")) == (answer.status_code, ["Something went wrong"])
        assert answer.status_code in (403, 404)
        assert answer.headers["x-request-id"] in page.main
        assert "openapi" not in page.main


def test_a_name_in_any_alphabet_is_shown_unchanged(looking: TestClient) -> None:
    page = Page(looking.get("/jobs", headers={"X-Forwarded-User": "Jürgen Żak".encode()}))
    assert "Signed in as Jürgen Żak" in page.texts["header"][0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_enough_contrast(scheme: str) -> None:
    palettes = re.findall(r":root \{(.*?)\}", STYLES.read_text(), re.S)
    colours = dict(re.findall(r"--([\w-]+): #(\w+);", palettes[scheme == "dark"]))
    pale = {f"{a} on {b}": _contrast(colours[a], colours[b]) for a, b, least in CONTRASTS
            if _contrast(colours[a], colours[b]) < least}  # fmt: skip
    assert pale == {}


def _contrast(one: str, other: str) -> float:
    dark, light = sorted(map(_luminance, (one, other)))
    return round((light + 0.05) / (dark + 0.05), 2)


def _luminance(colour: str) -> float:
    """WCAG's relative luminance of `rgb` or `rrggbb`."""
    full = colour if len(colour) == 6 else "".join(digit * 2 for digit in colour)
    channels = [int(full[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_reduced_motion_is_respected() -> None:
    text = STYLES.read_text()
    moving = text[text.index("@media (prefers-reduced-motion: no-preference)") :].split("\n}\n")[0]
    assert len(re.findall("transition|animation", text)) == len(re.findall("transition|animation", moving))


def test_a_browser_asks_whether_a_static_file_has_changed(pages: TestClient) -> None:
    styles = pages.get("/static/pages.css")
    assert (styles.status_code, styles.headers["cache-control"]) == (200, "no-cache")
    again = pages.get("/static/pages.css", headers={"If-None-Match": styles.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
