"""The two statistics as assets, and in one run over scattered cohorts: their rows, and isolated failures."""

from types import SimpleNamespace

import dagster as dg
import pytest

from dagster_backfills.components.assets import build_assets
from dagster_backfills.components.planning import plan_backfill
from dagster_backfills.components.refresh import build_job
from dagster_backfills.dagster.plan_report import report_metadata
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.progress.declared import PROGRESS
from dagster_backfills.engine.selection import Which
from dagster_backfills_tests.dagster.storing import (
    failure_description,
    materialize,
    materialized,
    metadata,
    open_failures,
    resources,
)

KEYS = ["c1", "it's, 100%", "empty", "nobody"]


@pytest.fixture
def sources(conn):
    """Two cohorts with students, one without students, one with nothing at all."""
    conn.execute("insert into progress.schools values ('s', 'School')")
    for key in KEYS:
        conn.execute(
            "insert into progress.cohorts (id, school_id, name) values (%s, 's', %s)", [key, f"The {key}"]
        )
    for key in KEYS[:3]:
        conn.execute("insert into progress.classes values (%s, %s)", [f"class {key}", key])
        conn.execute("insert into progress.modules values (%s, %s)", [f"module {key}", f"class {key}"])
        for n in range(8):
            conn.execute("insert into progress.questions values (%s, %s)", [f"q{n} {key}", f"module {key}"])
    for key in KEYS[:2]:
        for user, deleted in (("a", None), ("b", None), ("gone", "2024-01-01")):
            conn.execute(
                "insert into progress.users values (%s, %s, 'N', %s, %s)",
                [f"{user} {key}", key, f"{user}@x", deleted],
            )
        conn.execute(
            "insert into progress.user_progress (user_id, question_id, class_id, selected_options, is_mastered,"
            " last_attempt_at) select 'a ' || %(k)s, 'q' || n || ' ' || %(k)s, 'class ' || %(k)s, '{A}', n = 0,"
            " '2024-02-01' from generate_series(0, 2) n",
            {"k": key},
        )
    # Remove what the triggers have already computed, which is not tested here.
    conn.execute("truncate progress.user_progress_stats, progress.cohort_stats")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("progress_cohorts", KEYS)
        yield made


def assert_right(conn, keys=KEYS):
    users = conn.execute(
        "select user_id, questions_interacted, questions_mastered, total_questions from progress.user_progress_stats"
        " order by 1"
    ).fetchall()
    expected = [(f"{u} {k}", *n, 8) for k in KEYS[:2] if k in keys for u, n in (("a", (3, 1)), ("b", (0, 0)))]
    assert users == sorted(expected)
    cohorts = dict(
        (row[0], row[1:])
        for row in conn.execute(
            "select cohort_id, total_students, total_questions, total_modules, average_completion"
            " from progress.cohort_stats"
        )
    )
    # One of two students has answered three of eight questions: 18.75 percent.
    every = {key: (2, 8, 1, 19) for key in KEYS[:2]} | {"empty": (0, 8, 1, 0), "nobody": (0, 0, 0, 0)}
    assert cohorts == {key: every[key] for key in keys}


def test_one_run_over_all_cohorts(database_url, conn, sources, instance):
    result = materialize(database_url, build_assets(PROGRESS), keys=(KEYS[0], KEYS[-1]), instance=instance)
    assert_right(conn)
    for asset in ("progress/user_progress_stats", "progress/cohort_stats"):
        assert materialized(result, asset) == {key: 1 for key in KEYS}
    assert conn.execute("select count(*) from backfill.stale").fetchone() == (0,)


def test_only_the_bad_cohort_fails(database_url, conn, sources, instance):
    conn.execute("alter table progress.cohort_stats add check (cohort_id <> 'empty') not valid")
    result = materialize(
        database_url, build_assets(PROGRESS), keys=(KEYS[0], KEYS[-1]), instance=instance, expect=False
    )
    assert "1 of 4 partitions" in failure_description(
        result
    ) and "'empty' (The empty): new row" in failure_description(result)
    assert materialized(result, "progress/cohort_stats") == {key: 1 for key in KEYS if key != "empty"}
    assert_right(conn, [key for key in KEYS if key != "empty"])
    assert [entry[:3] for entry in open_failures(conn)] == [("progress/cohort_stats", "empty", None)]


def test_runs_and_checks_show_names_next_to_ids(database_url, conn, sources, instance):
    conn.execute("alter table progress.cohort_stats add check (cohort_id <> 'empty') not valid")
    result = materialize(
        database_url,
        build_assets(PROGRESS),
        keys=(KEYS[0], KEYS[-1]),
        instance=instance,
        expect=False,
    )
    assert metadata(result, "progress/cohort_stats", "c1")["name"] == "The c1"
    [failed] = [event for event in result.all_events if event.is_step_failure]
    listed = failed.step_failure_data.user_failure_data.metadata["failures"].records
    assert [(each.data["partition"], each.data["name"]) for each in listed] == [("empty", "The empty")]
    at = SimpleNamespace(postgres=PostgresResource(url=database_url))
    [open_ones] = PROGRESS.rules.evaluate(at, {"no_open_failures"})
    assert "First: empty (The empty: new row" in (open_ones.description or "")
    [record] = open_ones.metadata["first_breaches"].records
    assert list(record.data)[:3] == ["failed", "name", "partition"] and record.data["name"] == "The empty"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"which": "all"}, KEYS),
        ({"which": "due"}, KEYS),
        ({"which": "missing"}, KEYS),
        ({"which": "named", "partitions": ["it's, 100%", "nobody"]}, ["it's, 100%", "nobody"]),
    ],
)
def test_one_run_selects_the_requested_cohorts(database_url, conn, sources, instance, config, expected):
    result = build_job(PROGRESS).execute_in_process(
        run_config=config,
        resources=resources(database_url),
        instance=instance,
    )
    assert materialized(result, "progress/cohort_stats") == {key: 1 for key in expected}
    assert_right(conn, expected)


def test_a_plan_shows_names_next_to_ids(database_url, conn, sources):
    report = plan_backfill(PROGRESS, PostgresResource(url=database_url).connect, Which.all)
    assert "| empty (The empty) |" in report_metadata(report)["by_partition"].md_str


def test_in_a_run_over_scattered_cohorts_the_failed_one_is_shown_as_failed(
    database_url, conn, sources, instance
):
    conn.execute("alter table progress.cohort_stats add check (cohort_id <> 'empty') not valid")
    result = build_job(PROGRESS).execute_in_process(
        run_config={"which": "all"},
        resources=resources(database_url),
        instance=instance,
        raise_on_error=False,
    )
    assert not result.success
    # The cohort has no students, so that there are no students' rows to write.
    for asset, shown in (
        ("progress/user_progress_stats", "MATERIALIZED"),
        ("progress/cohort_stats", "FAILED"),
    ):
        states = instance.get_status_by_partition(
            dg.AssetKey(asset.split("/")), KEYS, PROGRESS.partitions_def
        )
        assert {key: states[key].value for key in KEYS} == dict.fromkeys(KEYS, "MATERIALIZED") | {
            "empty": shown
        }


def test_an_unknown_cohort_is_named(database_url, sources, instance):
    result = build_job(PROGRESS).execute_in_process(
        run_config={"which": "named", "partitions": ["nope"]},
        resources=resources(database_url),
        instance=instance,
        raise_on_error=False,
    )
    assert "There is no partition 'nope'" in failure_description(result)
