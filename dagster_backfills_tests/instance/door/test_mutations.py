"""Every mutation of Dagster's schema, requested by users without the right."""

import pytest
from dagster_graphql.schema import create_schema

from dagster_backfills.instance.door.mutations import RIGHTS
from dagster_backfills.instance.roles import Right
from dagster_backfills_tests.instance.door.asking import LAUNCH, run_of, written
from dagster_backfills_tests.instance.door.conftest import Served

pytestmark = pytest.mark.e2e

MUTATIONS = create_schema().graphql_schema.mutation_type.fields


def test_every_mutation_of_dagster_has_a_right_and_no_unknown_one_is_listed() -> None:
    unknown, gone = sorted(set(MUTATIONS) - set(RIGHTS)), sorted(set(RIGHTS) - set(MUTATIONS))
    assert (unknown, gone) == ([], []), "give each its right in instance/door/mutations.py"


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_viewers_are_refused_and_the_refusal_is_audited(served: Served, name: str) -> None:
    before, launched = len(served.rows()), served.launched()
    answer = served.ask("vera", written(name, MUTATIONS[name]))
    assert answer.refused == (RIGHTS[name] is not Right.view), answer
    assert served.launched() == launched
    noted = [(row["who"], row["action"], row["outcome"]) for row in served.rows()[before:]]
    assert noted == ([("vera", name, "refused")] if answer.refused else [])


@pytest.mark.parametrize("name", sorted(name for name, right in RIGHTS.items() if right is Right.admin))
def test_a_user_who_may_launch_everywhere_may_not_change_the_instance(served: Served, name: str) -> None:
    answer = served.ask("lena", written(name, MUTATIONS[name]))
    assert answer.refused
    output = " ".join([*answer.errors, *(str(each.get("message")) for each in answer.results())])
    assert f"lena may not {name}: it needs the right admin in all domains." in output


@pytest.mark.parametrize("name", sorted(name for name, right in RIGHTS.items() if right is Right.launch))
def test_a_user_who_may_launch_everywhere_is_authorized(served: Served, name: str) -> None:
    # Its target does not exist: Dagster says so or fails, so the request was authorized.
    answer = served.ask("lena", written(name, MUTATIONS[name]))
    assert not answer.refused
    assert served.rows()[-1]["outcome"] in ("done", "failed")


def test_an_unlisted_mutation_is_refused_to_everyone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = served.launched()
    monkeypatch.delitem(RIGHTS, "launchRun")  # type: ignore[arg-type]
    answer = served.ask("olga", LAUNCH, run=run_of("refresh_training"))
    assert answer.data["launchRun"]["__typename"] == "UnauthorizedError"
    assert "is not a known mutation" in answer.data["launchRun"]["message"]
    assert served.launched() == launched
