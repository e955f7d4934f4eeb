"""Enabled domains: what is loaded, migrated and shown."""

import json
from collections.abc import Callable

import psycopg
import pytest

from dagster_backfills.cli import doctor_machine
from dagster_backfills.definitions import defs
from dagster_backfills.domain_switches import DOMAINS, LIBRARIES, disabled_domains, enabled_domains
from dagster_backfills.errors import UserError
from dagster_backfills_tests.cli.conftest import Cli


def groups() -> set[str]:
    return {key.path[0] for key in defs().resolve_asset_graph().get_all_asset_keys()}


@pytest.mark.parametrize(
    ("given", "loaded"),
    [
        ("none", set()),
        ("operations", {"backfill", "operations"}),
        ("training", {"backfill", "operations", "training"}),
        ("scoring, queue", {"backfill", "operations", "scoring", "jobs"}),
        ("", {"backfill", "operations", "training", "progress", "kintell", "jobs", "scoring"}),
        ("trainning", {"backfill", "operations", "training", "progress", "kintell", "jobs", "scoring"}),
    ],
)
def test_the_location_loads_the_enabled_domains(
    given: str, loaded: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKFILLS_DOMAINS", given)
    assert groups() == loaded


def test_an_unknown_domain_is_named_with_the_closest_match() -> None:
    with pytest.raises(UserError, match="there is no domain 'trainning'") as raised:
        enabled_domains({"BACKFILLS_DOMAINS": "trainning"})
    assert raised.value.hint.startswith("Did you mean training")
    assert disabled_domains({"BACKFILLS_DOMAINS": "trainning"}) == frozenset()
    assert enabled_domains({}) == (*DOMAINS, "operations")


def schemas(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        found = conn.execute(
            "select nspname from pg_namespace where nspname !~ '^pg_|^information_schema$|^public$'"
        )
        return {row[0] for row in found}


def test_only_the_schemas_of_enabled_domains_are_created(cli: Cli, make_database: Callable[..., str]) -> None:
    """Enables domains one after another. A schema stays when its domain is disabled again."""
    environment = {"DATABASE_URL": make_database(migrated=False)}
    engine = cli("migrate", "--roles", env=environment | {"BACKFILLS_DOMAINS": "none"})
    assert engine.returncode == 0, engine.stderr
    assert "The database is up to date: 1 migration.\n" in engine.stderr + engine.stdout
    assert "Enabled domains (BACKFILLS_DOMAINS): none, and declarations need none.\n" in engine.stderr
    assert schemas(environment["DATABASE_URL"]) == {"backfill", "dagster"}
    queue = cli("migrate", env=environment | {"BACKFILLS_DOMAINS": "queue"})
    assert "Enabled domains (BACKFILLS_DOMAINS): queue, operations.\n" in queue.stderr
    assert schemas(environment["DATABASE_URL"]) == {"backfill", "dagster", "jobs", "operations"}
    again = cli("migrate", "--status", "--json", env=environment | {"BACKFILLS_DOMAINS": "none"})
    assert json.loads(again.stdout) == {
        "applied_now": [], "applied": ["0001_backfill", "0005_jobs", "0007_operations"], "pending": [], "domains": [],
    }  # fmt: skip
    cli("migrate", "--roles", env=environment | {"BACKFILLS_DOMAINS": "all"})
    assert schemas(environment["DATABASE_URL"]) >= {"training", "progress", "kintell", "jobs", "scoring"}


def test_commands_work_without_the_domains(cli: Cli, make_database: Callable[..., str]) -> None:
    environment = {"DATABASE_URL": make_database(migrated=False), "BACKFILLS_DOMAINS": "none"}
    assert cli("migrate", env=environment).returncode == 0
    page = cli("status", "--json", env=environment)
    assert page.returncode == 0, page.stderr
    assert {json.loads(page.stdout)[name] == [] for name in ("imports", "queue", "chain")} == {True}
    looked = cli("doctor", "--json", env=environment)
    found = {each["check"]: each for each in json.loads(looked.stdout)["findings"]}
    assert json.loads(looked.stdout)["ok"], looked.stdout
    assert found["domains"]["found"] == "Switched on: none."
    assert not {"nats", "inbox", "notifications"} & set(found)
    unknown = cli("migrate", env=environment | {"BACKFILLS_DOMAINS": "kintel"})
    assert (unknown.returncode, "there is no domain 'kintel'" in unknown.stderr) == (2, True)


def test_a_domain_without_its_library_is_left_out_with_a_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(LIBRARIES, "scoring", ("pandera", "no_such_library"))
    assert groups() == {"backfill", "operations", "training", "progress", "kintell", "jobs"}
    message = (
        "The domain scoring needs libraries that are not installed (no_such_library): "
        "pip install 'dagster-backfills[scoring]'."
    )
    assert message in caplog.text
    [finding] = doctor_machine.domains()
    assert (finding.level.value, finding.found) == ("error", message)
