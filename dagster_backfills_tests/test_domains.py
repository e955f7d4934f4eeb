"""Which domains the code location loads."""

import pytest

from dagster_backfills.definitions import defs
from dagster_backfills.domains import DOMAINS, switched_off, switched_on
from dagster_backfills.errors import UserError


def groups() -> set[str]:
    return {key.path[0] for key in defs().resolve_asset_graph().get_all_asset_keys()}


@pytest.mark.parametrize(
    ("given", "loaded"),
    [
        ("none", {"backfill", "operations"}),
        ("training", {"backfill", "operations", "training"}),
        ("scoring, queue", {"backfill", "operations", "scoring", "jobs"}),
        ("", {"backfill", "operations", "training", "progress", "kintell", "jobs", "scoring"}),
        ("trainning", {"backfill", "operations", "training", "progress", "kintell", "jobs", "scoring"}),
    ],
)
def test_the_location_loads_the_domains_that_are_switched_on(
    given: str, loaded: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKFILLS_DOMAINS", given)
    assert groups() == loaded


def test_a_domain_that_is_none_is_told_with_what_comes_close() -> None:
    with pytest.raises(UserError, match="there is no domain 'trainning'") as raised:
        switched_on({"BACKFILLS_DOMAINS": "trainning"})
    assert raised.value.hint.startswith("Did you mean training")
    assert switched_off({"BACKFILLS_DOMAINS": "trainning"}) == frozenset()
    assert switched_on({}) == DOMAINS
