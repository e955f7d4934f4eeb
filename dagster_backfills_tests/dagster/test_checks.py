"""Check rules: evaluated once in each run that writes, even if it fails, and separately as asset checks."""

from typing import Any

import dagster as dg
import pytest

from dagster_backfills.dagster.checks import CheckRule, CheckRules
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.definitions import defs

SMALL, FEW = "numbers_are_small", "numbers_are_few"
KEY = dg.AssetKey(["t", "numbers"])


class Switch(dg.ConfigurableResource):
    off: bool = False


@pytest.fixture
def table(conn: Any) -> None:
    conn.execute("create schema t; create table t.numbers (n int)")


def _rules() -> CheckRules:
    statements = {
        "large": "select n from t.numbers where n > %(most)s",
        "many": "select count(*) from t.numbers having count(*) > 3",
    }
    return CheckRules(
        "number_checks",
        {
            SMALL: CheckRule("t/numbers", "large", "No number is large."),
            FEW: CheckRule(
                "t/numbers",
                "many",
                "There are few.",
                warns=True,
                skip_reason=lambda resources: "Nobody counts." if resources.switch.off else None,
            ),
        },
        statements,
        {"most": 9},
        needs=frozenset({"switch"}),
    )


def _job(rules: CheckRules) -> dg.JobDefinition:
    @dg.op(config_schema={"numbers": [int], "fail": bool}, required_resource_keys={"postgres"})
    def write(context: dg.OpExecutionContext) -> None:
        with context.resources.postgres.connect() as conn:
            for number in context.op_config["numbers"]:
                conn.execute("insert into t.numbers values (%s)", [number])
            conn.commit()
        if context.op_config["fail"]:
            raise dg.Failure("as asked", allow_retries=False)

    @dg.job(hooks=rules.after())
    def writing() -> None:
        write()

    return writing


def _evaluations(instance: dg.DagsterInstance, name: str) -> list[dg.AssetCheckEvaluation]:
    """Evaluations, oldest first."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(KEY, name), limit=99
    )
    return [record.event.dagster_event.event_specific_data for record in reversed(records)]  # type: ignore[misc, union-attr]


@pytest.fixture
def instance() -> Any:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def _run(
    instance: dg.DagsterInstance, url: str, *numbers: int, fail: bool = False, off: bool = False
) -> dg.ExecuteInProcessResult:
    return _job(_rules()).execute_in_process(
        run_config={"ops": {"write": {"config": {"numbers": list(numbers), "fail": fail}}}},
        resources={"postgres": PostgresResource(url=url), "switch": Switch(off=off)},
        instance=instance,
        raise_on_error=False,
    )


def test_every_run_evaluates_the_checks_even_in_quick_succession(
    instance: dg.DagsterInstance, database_url: str, table: None
) -> None:
    runs = [_run(instance, database_url, n).run_id for n in (1, 10, 2)]
    made = _evaluations(instance, SMALL)
    assert [each.passed for each in made] == [True, False, False]
    assert [each.metadata["run"].value for each in made] == runs
    assert "Broken by 1: No number is large. First: 10." in (made[1].description or "")


def test_a_failed_run_evaluates_the_checks_on_what_it_wrote(
    instance: dg.DagsterInstance, database_url: str, table: None
) -> None:
    assert not _run(instance, database_url, 10, fail=True).success
    assert [each.passed for each in _evaluations(instance, SMALL)] == [False]


def test_a_skipped_rule_passes_with_its_reason(
    instance: dg.DagsterInstance, database_url: str, table: None
) -> None:
    _run(instance, database_url, 1, 2, 3, 4, off=True)
    _run(instance, database_url, off=False)
    first, second = _evaluations(instance, FEW)
    assert (first.passed, first.description) == (True, "Nobody counts.")
    assert (second.passed, second.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_the_checks_run_once_for_a_range_of_partitions(
    instance: dg.DagsterInstance, database_url: str
) -> None:
    calls: list[int] = []
    rule = CheckRule("t/numbers", "x", "…", skip_reason=lambda resources: calls.append(1))  # type: ignore[func-returns-value]
    rules = CheckRules("one", {SMALL: rule}, {"x": "select 1 where false"}, {})

    @dg.asset(
        key=KEY, partitions_def=dg.StaticPartitionsDefinition([str(n) for n in range(500)]),
        backfill_policy=dg.BackfillPolicy.single_run(), hooks=rules.after_failure(),
    )  # fmt: skip
    def numbers() -> None: ...

    location = dg.Definitions(
        [numbers],
        asset_checks=[rules.definition()],
        resources={"postgres": PostgresResource(url=database_url)},
    )
    tags = {"dagster/asset_partition_range_start": "0", "dagster/asset_partition_range_end": "499"}
    job = location.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, tags=tags).success
    assert calls == [1]
    assert [each.passed for each in _evaluations(instance, SMALL)] == [True]


def test_every_job_that_writes_checked_assets_evaluates_their_checks() -> None:
    location = defs()
    written = {
        "refresh_progress_stats": "progress_stats_checks",
        "refresh_training_completions": "training_completions_checks",
        "rollback_training_backfill": "training_completions_checks",
        "rollback_kintell_import": "kintell_checks",
        "replay_kintell_errors": "kintell_checks",
        "publish_kintell_events": "kintell_checks",
    }
    for job, rules in written.items():
        names = {hook.name for hook in location.resolve_job_def(job).hook_defs}
        assert names == {f"{rules}_after", f"{rules}_after_failure"}, job
