"""Real data: the statistics of all 22 presentations equal those of an independent computation in pandas.

The expected values come directly from the files, not from the assets' SQL or the tests' reference.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
import pytest
from psycopg.rows import namedtuple_row

from dagster_backfills.components.assets import build_assets
from dagster_backfills.components.refresh import build_job
from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills_tests.conftest import database_name, new_database
from dagster_backfills_tests.dagster.storing import materialize, resources
from dagster_backfills_tests.domains.progress.oulad import load_oulad, oulad_folder

if TYPE_CHECKING:
    import pandas as pd

USER_COLUMNS = [
    "user_id",
    "cohort_id",
    "questions_interacted",
    "questions_mastered",
    "total_questions",
    "last_activity_at",
]
COHORT_COLUMNS = ["cohort_id", "total_students", "total_questions", "total_modules", "average_completion"]


@pytest.fixture(scope="module")
def folder(project_root: Path) -> Path:
    return oulad_folder(project_root)


@pytest.fixture(scope="module")
def expected(folder: Path) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The expected rows of both tables, from the files."""
    import pandas as pd

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / f"{name}.csv.gz", na_values=["?"])

    def keyed(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(cohort_id=frame["code_module"] + "/" + frame["code_presentation"])

    assessments = keyed(read("assessments"))
    totals = assessments.groupby("cohort_id").size().rename("total_questions")
    students = keyed(read("studentRegistration"))
    students = students[students["date_unregistration"].isna()]
    students = students.assign(user_id=students["cohort_id"] + "/" + students["id_student"].astype(str))

    submissions = read("studentAssessment").merge(assessments, on="id_assessment")
    submissions["user_id"] = submissions["cohort_id"] + "/" + submissions["id_student"].astype(str)
    submissions["on_time"] = submissions["date_submitted"] <= submissions["date"]
    year = submissions["code_presentation"].str[:4]
    month = submissions["code_presentation"].str[4].map({"B": "-02-01", "J": "-10-01"})
    start = pd.to_datetime(year + month, utc=True)
    submissions["at"] = start + pd.to_timedelta(submissions["date_submitted"], unit="D")
    answered = submissions.groupby("user_id").agg(
        questions_interacted=("id_assessment", "count"),
        questions_mastered=("on_time", "sum"),
        last_activity_at=("at", "max"),
    )
    users = students.merge(answered, how="left", on="user_id").merge(totals, how="left", on="cohort_id")
    counts = ["questions_interacted", "questions_mastered", "total_questions"]
    users[counts] = users[counts].fillna(0).astype(int)

    groups = users.groupby("cohort_id")
    cohorts = groups.agg(total_students=("user_id", "count"), done=("questions_interacted", "sum"))
    cohorts = cohorts.join(totals).assign(total_modules=totals)
    possible = cohorts["total_students"] * cohorts["total_questions"]
    cohorts["average_completion"] = (200 * cohorts["done"] + possible) // (2 * possible)
    return sorted_frame(users[USER_COLUMNS]), sorted_frame(cohorts.reset_index()[COHORT_COLUMNS])


def sorted_frame(frame: "pd.DataFrame") -> "pd.DataFrame":
    return frame.sort_values(frame.columns[0]).reset_index(drop=True)


def stored(conn: psycopg.Connection[Any], table: str, columns: list[str]) -> "pd.DataFrame":
    import pandas as pd

    rows = conn.execute(f"select {', '.join(columns)} from progress.{table}").fetchall()  # noqa: S608
    return sorted_frame(pd.DataFrame(rows, columns=columns))


def assert_equal(actual: "pd.DataFrame", wanted: "pd.DataFrame") -> None:
    import pandas as pd

    assert len(actual) > 0
    pd.testing.assert_frame_equal(actual, wanted, check_dtype=False)


@pytest.fixture(scope="module")
def loaded(server_url: str, template: str, folder: Path) -> Iterator[str]:
    """A template database with the files' data."""
    with new_database(server_url, template) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            load_oulad(conn, folder)
            conn.execute("analyze")
        yield url


@pytest.fixture
def database_url(server_url: str, loaded: str) -> Iterator[str]:
    with new_database(server_url, database_name(loaded)) as url:
        yield url


def test_the_files_are_loaded_completely(conn):
    counts = {
        table: conn.execute(f"select count(*) from progress.{table}").fetchone()[0]  # noqa: S608
        for table in ("schools", "cohorts", "users", "questions", "user_progress", "user_progress_stats")
    }
    assert counts == {
        "schools": 7,
        "cohorts": 22,
        "users": 32_593,
        "questions": 206,
        "user_progress": 173_912,
        "user_progress_stats": 0,
    }


def test_real_submissions_saved_with_the_triggers_on_give_every_students_statistics(
    make_database, folder, expected
):
    with psycopg.connect(make_database(), autocommit=True) as conn:
        load_oulad(conn, folder, realtime=True)
        assert_equal(stored(conn, "user_progress_stats", USER_COLUMNS), expected[0])


def run_the_job(url: str, keys: list[str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = build_job(PROGRESS).execute_in_process(
            run_config={"which": "all"},
            resources=resources(url),
            instance=instance,
        )
        assert result.success
        reported = {
            asset: instance.get_materialized_partitions(dg.AssetKey(["progress", asset]))
            for asset in ("user_progress_stats", "cohort_stats")
        }
        assert all(partitions == set(keys) for partitions in reported.values())


def materialize_the_assets(url: str, keys: list[str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(PROGRESS.partitions_def.name), keys)
        materialize(url, build_assets(PROGRESS), keys=(keys[0], keys[-1]), instance=instance)


@pytest.mark.parametrize("backfill", [run_the_job, materialize_the_assets])
def test_a_full_backfill_of_real_data_gives_the_statistics_that_pandas_computes(
    conn, database_url, expected, backfill: Callable[[str, list[str]], None]
):
    keys = [key for (key,) in conn.execute("select id from progress.cohorts")]
    backfill(database_url, keys)
    assert_equal(stored(conn, "user_progress_stats", USER_COLUMNS), expected[0])
    assert_equal(stored(conn, "cohort_stats", COHORT_COLUMNS), expected[1])
    cursor = conn.cursor(row_factory=namedtuple_row)
    after = cursor.execute("select * from progress.cohort_status").fetchall()
    assert len(after) == 22
    assert [cohort for cohort in after if cohort.needs_backfill] == []
    assert sum(cohort.students_with_stats for cohort in after) == len(expected[0])
