"""What an operator's scheduled statements remove from Dagster's own tables, and what they leave."""

from pathlib import Path

import dagster as dg
import psycopg
import pytest


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def kept(context: dg.AssetExecutionContext) -> None:
    context.log.info("a line")


def test_old_log_lines_go_and_every_assets_history_stays(
    project_root: Path, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((project_root / "dagster.yaml").read_text())
    monkeypatch.setenv("DATABASE_URL", database_url)
    statement = (project_root / "sql" / "maintenance" / "dagster_events.sql").read_bytes()
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
        conn.execute(statement)
        after = {run: conn.execute(events, [run]).fetchone() for run in (old, working, new)}
        assert before[old] is not None and before[old][0] > before[old][1] > 0
        assert after == before | {old: (before[old][1], before[old][1])}
        assert instance.get_materialized_partitions(kept.key) == {"a", "b"}
        assert instance.get_run_by_id(old) is not None
        conn.execute(statement)
        assert after == {run: conn.execute(events, [run]).fetchone() for run in (old, working, new)}
