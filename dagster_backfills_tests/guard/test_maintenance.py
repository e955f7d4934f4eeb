"""The daily job that prunes Dagster's event log: what it removes, and what it keeps."""

from pathlib import Path

import dagster as dg
import psycopg
import pytest

from dagster_backfills.defs.operations.jobs import thin_dagster_event_log


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def kept(context: dg.AssetExecutionContext) -> None:
    context.log.info("a line")


def removed(instance: dg.DagsterInstance) -> int:
    """Runs the job. Its own log is not in the log that it prunes."""
    op = thin_dagster_event_log.execute_in_process(instance=instance).events_for_node("remove_old_entries")
    (output,) = (event.step_output_data for event in op if event.is_successful_output)
    return output.metadata["rows_removed"].value if "rows_removed" in output.metadata else -1


def test_old_log_lines_are_removed_and_every_assets_history_is_kept(
    project_root: Path, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((project_root / "dagster.yaml").read_text())
    monkeypatch.setenv("DATABASE_URL", database_url)
    events = "select count(*), count(asset_key) from dagster.event_logs where run_id = %s"
    with (
        dg.DagsterInstance.from_config(str(tmp_path)) as instance,
        psycopg.connect(database_url, autocommit=True) as conn,
    ):
        old, working, new = (
            dg.materialize([kept], partition_key=key, instance=instance).run_id for key in ("a", "b", "b")
        )
        conn.execute("update dagster.runs set status = 'STARTED' where run_id = %s", [working])
        conn.execute(
            "update dagster.event_logs set timestamp = timestamp - interval '91 days' where run_id = any(%s)",
            [[old, working]],
        )
        before = {run: conn.execute(events, [run]).fetchone() for run in (old, working, new)}
        assert removed(instance) == before[old][0] - before[old][1]
        after = {run: conn.execute(events, [run]).fetchone() for run in (old, working, new)}
        assert before[old] is not None and before[old][0] > before[old][1] > 0
        assert after == before | {old: (before[old][1], before[old][1])}
        assert instance.get_materialized_partitions(kept.key) == {"a", "b"}
        assert instance.get_run_by_id(old) is not None
        assert removed(instance) == 0
        assert after == {run: conn.execute(events, [run]).fetchone() for run in (old, working, new)}


def test_a_log_kept_forever_or_in_another_storage_is_not_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert removed(instance) == -1
    monkeypatch.setenv("EVENT_LOG_KEEP_DAYS", "0")
    with dg.DagsterInstance.ephemeral() as instance:
        assert removed(instance) == -1
