"""A run's messages about its progress and about failed partitions."""

from dagster_backfills.dagster.report import ProgressLog, failure_of
from dagster_backfills.engine.outcome import Failure, Outcome
from dagster_backfills.engine.run_identity import RunIdentity
from dagster_backfills.engine.runner import Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills_tests.engine.running import addressed, by_unit, fill, opened


def test_progress_is_computed_from_units_if_they_are_counted(conn, database_url):
    """The first of three partitions has nine of eleven units: after it, 81 % are done, not 33 %."""
    fill(conn, 3, 1)
    conn.execute("insert into t.source select 'p001', 'u' || n, n from generate_series(1, 8) as n")
    settings = EngineSettings(target_seconds=0, batch_units=1, min_batch_units=1)
    runner = Runner(lambda: opened(database_url), RunIdentity("run"), settings)
    progress, lines = ProgressLog(3, lambda line: None), []
    for finished in runner.run(addressed([by_unit]), ["p001", "p002", "p003"]):
        progress.step(len(finished), runner)
        lines.append(progress.line(runner))
    assert [line.split(",")[0] for line in lines] == [
        "1 of 3 partitions (81 %)",
        "2 of 3 partitions (90 %)",
        "3 of 3 partitions (100 %)",
    ]


def test_failed_partitions_are_listed_where_only_some_of_them_have_a_name() -> None:
    outcome = Outcome()
    for key in ("p1", "p2"):
        outcome.failed[key] = Failure("t/units", key, None, "CheckViolation", "23514", "too many")
    failure = failure_of(outcome, 3, {"p1": None, "p2": "Second"})
    assert "2 of 3 partitions could not be written ('p1': too many; 'p2' (Second): too many)" in (
        failure.description or ""
    )
    assert [record.data["name"] for record in failure.metadata["failures"].records] == [None, "Second"]
