"""`backfills demo` from an empty database: the README's first command."""

import json

import psycopg
import pytest

from dagster_backfills_tests.cli.conftest import Cli

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_the_demo_migrates_loads_backfills_every_domain_and_can_be_run_again(cli: Cli, make_database) -> None:
    url = make_database(migrated=False)
    first = cli("demo", env={"DATABASE_URL": url})
    assert first.returncode == 0, first.stderr
    with psycopg.connect(url) as conn:
        missing, students = conn.execute(
            "select count(*) filter (where needs_backfill), sum(students) from progress.cohort_status"
        ).fetchone() or (None, None)
    assert missing == 0
    assert students > 1000
    overview = {
        each["backfill"]: each
        for each in json.loads(cli("status", "--json", env={"DATABASE_URL": url}).stdout)["backfills"]
    }
    written = ("kintell", "progress_stats", "scoring", "training_completions")
    assert set(overview) == {"queue", *written}
    assert all(overview[domain]["up_to_date"] > 0 for domain in written)
    assert all(overview[domain]["missing"] == 0 for domain in ("progress_stats", "training_completions"))
    with psycopg.connect(url) as conn:
        counts = "select total_rows, inserted_rows, failed_rows from kintell.backfill_jobs"
        assert conn.execute(counts).fetchone() == (600, 585, 15)
    second = cli("demo", env={"DATABASE_URL": url})
    assert second.returncode == 0, second.stderr
