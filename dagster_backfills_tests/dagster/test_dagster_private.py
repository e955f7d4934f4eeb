"""If a private name of Dagster is missing, the code that uses it falls back to Dagster's behaviour, and all loads."""

import builtins
import importlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_backfills.dagster import private
from dagster_backfills_tests.dagster.storing import materializations, materialize


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Reloads a module while imports from one of Dagster's own modules fail. Restores it at the end."""
    stock = builtins.__import__

    def hide(module: str) -> None:
        def hiding(name: str, *args: Any, **kwargs: Any) -> Any:
            importer = (args[0] or {}).get("__name__") if args else None
            if name == module and importer == private.__name__:
                raise ImportError(f"no {name}")
            return stock(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", hiding)

    yield hide
    monkeypatch.undo()
    importlib.reload(private)


def _asset() -> dg.AssetsDefinition:
    import pandas as pd

    @dg.asset(
        key=["t", "items"], partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]), code_version="7",
        metadata={"partition_expr": "part"}, backfill_policy=dg.BackfillPolicy.single_run(),
    )  # fmt: skip
    def items(context: dg.AssetExecutionContext) -> pd.DataFrame:
        return pd.DataFrame({"part": context.partition_keys})

    return items


@pytest.fixture
def table(conn: Any) -> None:
    conn.execute("create schema t; create table t.items (part text primary key)")


def test_without_the_events_every_partition_is_reported_one_by_one(
    without: Any, database_url: str, table: None
) -> None:
    without("dagster._core.events")
    with pytest.warns(UserWarning, match="one by one"):
        importlib.reload(private)
    made = materializations(materialize(database_url, _asset(), keys=("a", "c")), "t/items")
    assert {each.partition for each in made} == {"a", "b", "c"}


def test_without_the_tags_partitions_are_reported_together_and_without_a_version(
    without: Any, database_url: str, table: None
) -> None:
    without("dagster._core.definitions.data_version")
    with pytest.warns(UserWarning, match="no data version"):
        importlib.reload(private)
    made = materializations(materialize(database_url, _asset(), keys=("a", "c")), "t/items")
    tags = {str(each.partition): dict(each.tags or {}) for each in made}
    assert (tags["a"], tags["b"]) == ({}, {})
    assert tags["c"]["dagster/code_version"] == "7"  # Dagster's own method


def test_next_tick_agrees_with_the_schedule(without: Any) -> None:
    now = datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert private.next_tick("30 1 * * *", "UTC", now) == datetime(2024, 1, 2, 1, 30, tzinfo=UTC)
    without("dagster._utils.schedules")
    assert private.next_tick("30 1 * * *", "UTC", now) is None


def test_a_partition_check_can_be_reported_without_a_materialization(without: Any) -> None:
    result = dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="two members")
    key = dg.AssetKey(["scoring", "commitment_scores"])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2024-01-01"))

        def evaluation() -> dg.AssetCheckEvaluation:
            return private.evaluated(instance, key, "2024-01-01", result, "covers_all")

        target = evaluation().target_materialization_data
        assert target is not None and target.run_id == ""
        without("dagster._core.definitions.asset_checks")
        bare = evaluation()
    assert (bare.target_materialization_data, bare.passed, bare.partition) == (None, False, "2024-01-01")


def test_an_output_whose_partitions_can_not_be_restricted_keeps_them() -> None:
    class Another:
        asset_partitions_def = dg.StaticPartitionsDefinition(["a", "b"])
        asset_partition_keys = ("a", "b")  # from wherever this version of Dagster defines them

    assert not private.narrow(Another(), ["a"])
    assert Another.asset_partition_keys == ("a", "b")


def test_a_step_without_metadata_methods_loses_only_that_metadata() -> None:
    key = dg.AssetKey("x")
    assert private.step_of(object()) is None
    assert private.is_output_of(object(), key) is False
    assert private.asset_metadata(object(), key) == {} and private.output_metadata(object(), key) == {}


def test_if_dev_starts_its_webserver_differently_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dev = importlib.import_module("dagster._cli.dev")
    monkeypatch.delattr(dev, "open_ipc_subprocess")
    with pytest.warns(UserWarning, match="The UI does not authenticate users"):
        private.replace_webserver_of_dev("mine")
    assert not hasattr(dev, "open_ipc_subprocess")


def test_only_the_private_modules_use_non_public_names_of_dagster(project_root: Path) -> None:
    found = {
        str(path.relative_to(project_root / "dagster_backfills"))
        for path in (project_root / "dagster_backfills").rglob("*.py")
        if "dagster._" in path.read_text()
    }
    assert found == {"dagster/private.py"}


@pytest.mark.programs
def test_the_location_loads_without_any_private_module_of_dagster(project_root: Path) -> None:
    hidden = "\n".join(
        [
            "import sys, builtins",
            "stock = builtins.__import__",
            "def hiding(name, g=None, *rest, **named):",
            "    if name.startswith('dagster._') and (g or {}).get('__name__', '').startswith('dagster_backfills'):",
            "        raise ImportError(name)",
            "    return stock(name, g, *rest, **named)",
            "import dagster, dagster_postgres",
            "builtins.__import__ = hiding",
            "from dagster_backfills.definitions import defs",
            "from dagster_backfills.instance.storage import BatchedPostgresStorage",
            "print(len(defs().resolve_all_asset_keys()) > 0)",
        ]
    )
    run = subprocess.run(
        [sys.executable, "-c", hidden], cwd=project_root, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip().endswith("True"), run.stderr[-2000:]
