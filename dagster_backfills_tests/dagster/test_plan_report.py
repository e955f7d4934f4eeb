"""A plan's report as metadata: truncation is stated, and values are formatted as in SQL and JSON."""

from dagster_backfills.dagster.plan_report import by_partition, examples, report_metadata
from dagster_backfills.engine.outcome import Counts, Failure
from dagster_backfills.engine.plan import Estimate, Report
from dagster_backfills.engine.rehearsal import Example


def report(partitions: int) -> Report:
    counts = {f"p{n:03}": Counts(inserted=1) for n in range(partitions)}
    failures = [Failure("t/x", key, None, "E", None, "no") for key in counts]
    return Report(["t/x"], {"t/x": counts}, failures, [], Estimate(0, 0, 0, 0), 0)


def test_truncated_tables_state_the_total() -> None:
    metadata = report_metadata(report(1_200))
    for name in ("by_partition", "failures", "changes"):
        lines = metadata[name].md_str.splitlines()
        assert (len(lines), lines[-1]) == (54, "Showing the first 50 of 1,200."), name
    assert len(report_metadata(report(50))["by_partition"].md_str.splitlines()) == 52


def test_the_command_line_gets_every_partition() -> None:
    assert len(by_partition(report(1_200))) == 1_200


def test_values_are_formatted_as_in_sql_and_json() -> None:
    found = report(0)
    found.examples = [
        Example("t/x", "p", "inserted", None, {"a": None, "b": True, "c": {"x": ["ü", 1.5]}, "d": "t"})
    ]
    ((*_, before, after),) = examples(found)
    assert (before, after) == ("–", 'a=null, b=true, c={"x": ["ü", 1.5]}, d=t')
