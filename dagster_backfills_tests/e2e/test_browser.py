"""A backfill in a real browser: select, launch, watch, one cohort fails, fix it, launch it again, all green.

With `BACKFILLS_SCREENSHOTS=<folder>`, it takes the pictures of the tutorial (`make screenshots`).
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from benchmarks.servers import Webserver
from dagster_backfills_tests.e2e.conftest import Stack, StackFactory
from dagster_backfills_tests.e2e.graphql import (
    finished_backfill,
    launch_backfill,
    partition_keys,
    partition_states,
    wait_for,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"
    ),
]

MODULE = "dagster_backfills_tests.e2e.progress_location"
ASSET, BEFORE = "progress/cohort_stats", "progress/user_progress_stats"
TERMS = [f"{term}-{year}" for year in (2024, 2025, 2026) for term in ("spring", "summer", "autumn")]
CHOSEN, BAD = ["spring-2025", "summer-2025", "autumn-2025"], "summer-2025"
_PATIENCE = 120_000  # milliseconds, enough for a busy machine; the test does not depend on it
_REPORT = """mutation($events: ReportRunlessAssetEventsParams!) { reportRunlessAssetEvents(eventParams: $events) {
  __typename } }"""


@pytest.fixture(scope="module")
def school(start_stack: StackFactory) -> Iterator[Stack]:
    """A stack with cohorts without statistics, which only the browser's runs compute."""
    with start_stack(MODULE, fill=_fill) as started:
        web = started.webserver
        wait_for("the cohorts' partitions", lambda: partition_keys(web, ASSET) == set(TERMS))
        _report_students(web)
        yield started


def _fill(conn: psycopg.Connection) -> None:
    conn.execute("insert into progress.schools values ('s', 'School')")
    for term in TERMS:
        conn.execute(
            "insert into progress.cohorts (id, school_id, name) values (%(t)s, 's', %(t)s)", {"t": term}
        )
        conn.execute("insert into progress.classes values (%(t)s, %(t)s)", {"t": term})
        conn.execute("insert into progress.modules values (%(t)s, %(t)s)", {"t": term})
        conn.execute("insert into progress.questions values (%(t)s, %(t)s)", {"t": term})
        conn.execute(
            "insert into progress.users (id, cohort_id, name, email)"
            " select 'u' || n || %(t)s, %(t)s, 'U', 'u@example.org' from generate_series(1, 30) as n",
            {"t": term},
        )
    conn.execute(
        "create function public.refuse() returns trigger language plpgsql as $$ begin"
        " raise exception 'the cohort % is refused', new.cohort_id; end $$"
    )
    conn.execute(
        "create trigger refuse before insert or update on progress.cohort_stats"
        f" for each row when (new.cohort_id = '{BAD}') execute function public.refuse()"
    )


def _report_students(webserver: Webserver) -> None:
    """Report the students' rows, which triggers keep up to date, as materialized. Otherwise Dagster shows a warning."""
    events = {
        "eventType": "ASSET_MATERIALIZATION",
        "assetKey": {"path": BEFORE.split("/")},
        "partitionKeys": TERMS,
    }
    answer = webserver.ask(_REPORT, events=events)["reportRunlessAssetEvents"]
    assert answer["__typename"] == "ReportRunlessAssetEventsSuccess", answer


@pytest.fixture
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox needs rights that containers lack. It only opens this machine's own pages.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        opened = browser.new_page(viewport={"width": 1200, "height": 720})
        opened.set_default_timeout(_PATIENCE)
        yield opened
        browser.close()


@dataclass
class Screenshots:
    """Take screenshots for the documentation, if a folder for them is set."""

    page: Any

    def take(self, name: str) -> None:
        folder = os.environ.get("BACKFILLS_SCREENSHOTS")
        if folder:
            self.page.wait_for_timeout(700)  # animations have ended
            self.page.screenshot(path=f"{folder}/{name}.png")


def _open_partitions(page: Any, web: Webserver) -> None:
    page.goto(f"{web.url}/assets/{ASSET}?view=partitions")
    page.get_by_text(re.compile(r"Materialized \(\d+\)")).wait_for()


def _open_dialog(page: Any) -> Any:
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
    dialog.wait_for()
    return dialog


def _launch(dialog: Any) -> None:
    dialog.get_by_role("button", name=re.compile("^Launch")).click()
    dialog.wait_for(state="hidden")


def _shows(page: Any, web: Webserver, **counts: int) -> None:
    """Wait until the partitions page shows this count."""
    for state, count in counts.items():
        page.get_by_text(f"{state.capitalize()} ({count})", exact=True).wait_for()


def test_cohorts_are_chosen_launched_watched_and_the_failed_one_is_launched_again(
    school: Stack, page: Any
) -> None:
    web, pictures = school.webserver, Screenshots(page)
    _open_partitions(page, web)
    _shows(page, web, missing=len(TERMS), materialized=0)

    dialog = _open_dialog(page)
    dialog.get_by_text("Select a partition or create one").click()
    for term in CHOSEN:
        page.get_by_role("menuitem").filter(has_text=term).click()
    page.keyboard.press("Escape")
    dialog.get_by_text(f"{len(CHOSEN)} partitions").wait_for()
    pictures.take("ui-choose-cohorts")
    _launch(dialog)

    states: Callable[[], dict[str, set[str]]] = lambda: partition_states(web, ASSET)  # noqa: E731
    page.goto(f"{web.url}/runs?view=backfills")
    wait_for("the backfill", lambda: states()["failed"] and len(states()["materialized"]) == 2, 240)
    page.get_by_text(f"{len(CHOSEN)} partitions", exact=True).first.wait_for()
    pictures.take("ui-backfills")

    _open_partitions(page, web)
    _shows(page, web, failed=1, materialized=2, missing=len(TERMS) - 3)
    assert states()["failed"] == {BAD}
    assert states()["materialized"] == set(CHOSEN) - {BAD}
    page.get_by_text(BAD, exact=True).first.click()
    pictures.take("ui-one-cohort-failed")
    with school.connect() as conn:
        assert conn.execute(
            "select partition, message from backfill.failures where resolved_at is null"
        ).fetchall() == [(BAD, f"the cohort {BAD} is refused")]

    # Both tables in one run, like automation: a failure of the second one does not change the first one's state.
    both = launch_backfill(web, [BEFORE, ASSET], [BAD])
    assert wait_for("both tables", lambda: finished_backfill(web, both), 240) == "COMPLETED_FAILED"
    assert (partition_states(web, BEFORE)["failed"], states()["failed"]) == (set(), {BAD})
    with school.connect() as conn:
        conn.execute("drop trigger refuse on progress.cohort_stats")

    _open_partitions(page, web)
    dialog = _open_dialog(page)
    dialog.get_by_role("button", name="Failed", exact=True).click()
    dialog.get_by_text("1 partition", exact=False).first.wait_for()
    page.wait_for_timeout(2000)  # warnings would have been loaded by now
    assert not dialog.get_by_text("Upstream data missing").count()
    pictures.take("ui-launch-the-failed-one")
    _launch(dialog)
    wait_for("the retry", lambda: states()["materialized"] == set(CHOSEN), 240)
    _open_partitions(page, web)
    _shows(page, web, failed=0, materialized=3)
    assert states()["failed"] == set()
    pictures.take("ui-all-green")
    with school.connect() as conn:
        assert conn.execute(
            "select count(*) from backfill.failures where resolved_at is null"
        ).fetchone() == (0,)
        assert {row[0] for row in conn.execute("select cohort_id from progress.cohort_stats")} == set(CHOSEN)
