"""Resolving an ID, a prefix of an ID, or a name that a user typed."""

import pytest

from dagster_backfills.errors import UserError
from dagster_backfills.names import counted, resolve_id

THERE = {
    "c-1": "Autumn 50% intake",
    "c-12": "autumn_evening",
    "c-3": "ÅNGSTRÖM, Straße",
    "x-4": "春のコホート",
    "odd, 'id' /%_ ö": "Zulu",
    "y-5": None,
}


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("c-1", "c-1"),
        ("c-12", "c-12"),
        ("x", "x-4"),
        ("zulu", "odd, 'id' /%_ ö"),
        ("AUTUMN_", "c-12"),
        ("a\u030angstro\u0308m, STRASSE", "c-3"),
        ("春", "x-4"),
        ("y", "y-5"),
    ],
)
def test_an_id_a_prefix_of_it_or_a_name_in_any_case_is_enough(wanted, meant):
    assert resolve_id(wanted, THERE, "cohort") == meant


def test_an_ambiguous_name_lists_the_matches():
    with pytest.raises(UserError) as error:
        resolve_id("autumn", THERE, "cohort")
    assert error.value.message == "2 cohorts match 'autumn'."
    assert error.value.hint == "Choose one: c-1 (Autumn 50% intake), c-12 (autumn_evening)."
    with pytest.raises(UserError, match="Choose one"):
        resolve_id("same", {"a": "Same", "b": "same"}, "cohort")


def test_an_unknown_name_suggests_similar_or_known_ones():
    with pytest.raises(
        UserError, match=r"There is no cohort 'zulo'. Did you mean odd, 'id' /%_ ö \(Zulu\)\?"
    ):
        resolve_id("zulo", THERE, "cohort")
    with pytest.raises(UserError, match=r"Did you mean c-1 \(Autumn 50% intake\)"):
        resolve_id("c1", {"c-1": "Autumn 50% intake"}, "cohort")
    with pytest.raises(UserError, match=r"There are c-1 \(Autumn 50% intake\), .*, …\."):
        resolve_id("???", THERE, "cohort")
    with pytest.raises(UserError, match="There is no cohort ''"):
        resolve_id("", {"a": None}, "cohort")
    with pytest.raises(UserError, match=r"`backfills list` has them"):
        resolve_id("???", THERE, "cohort", "`backfills list` has them.")


def test_counted_uses_the_singular_for_one_only() -> None:
    assert [counted(n, "run") for n in (0, 1, 2, 1_000)] == ["0 runs", "1 run", "2 runs", "1,000 runs"]


def test_an_unknown_name_among_very_many_is_compared_only_with_its_neighbours(monkeypatch):
    compared = []
    monkeypatch.setattr(
        "dagster_backfills.errors.get_close_matches",
        lambda name, some, **_: compared.extend(some) or some[:1],
    )
    with pytest.raises(UserError, match="Did you mean cohort-0"):
        resolve_id("cohort-050000x", {f"cohort-{n:06}": None for n in range(100_000)}, "cohort")
    assert len(compared) == 1000 and "cohort-050000" in compared
