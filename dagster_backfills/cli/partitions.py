"""How the partitions of one backfill stand: `backfills status NAME`."""

from collections.abc import Sequence
from dataclasses import asdict

from dagster_backfills.cli.backfills import Named
from dagster_backfills.cli.output import print_json, print_table, say
from dagster_backfills.engine.standing import Standing, next_of
from dagster_backfills.names import fold, the_one


def show(
    backfill: Named, text: str, needed: bool, failed: bool, limit: int | None, wide: bool, json: bool
) -> None:
    """The partitions, or those that a filter leaves, the newest first."""
    with backfill.connect() as conn:
        every = backfill.standings(conn)
    found = [each for each in reversed(every) if fold(text) in fold(_words(each))]
    if text and not found:
        the_one(text, {each.partition: each.name for each in every}, "partition")
    found = [each for each in found if (each.needs_backfill or not needed) and (each.failed or not failed)]
    if json:
        print_json([as_json(each) for each in found[:limit]])
        return
    if found:
        _print(found, limit, wide)
    say(summary(backfill.name, every))


def summary(name: str, found: Sequence[Standing]) -> str:
    """How many there are, how many need a backfill and why, and which is the next."""
    needed = next_of(list(found))
    said = f"{name}: {len(found):,} partitions, {len(needed):,} need a backfill"
    if not needed:
        return f"{said}."
    missing, stale = sum(each.missing for each in found), sum(bool(each.stale_since) for each in found)
    failed = sum(bool(each.failed) for each in found)
    named = f" ({needed[0].name})" if needed[0].name else ""
    return (
        f"{said}: {missing:,} missing, {stale:,} stale, {failed:,} failed. "
        f"Next: {needed[0].partition or 'all of it'}{named}"
    )


def as_json(each: Standing) -> dict[str, object]:
    """All that is known of one, flat."""
    said = asdict(each)
    return {**said.pop("more"), **said, "needs_backfill": each.needs_backfill, "state": str(each)}


def _words(each: Standing) -> str:
    return " ".join([each.partition, each.name or "", *(v for v in each.more.values() if isinstance(v, str))])


def _print(found: Sequence[Standing], limit: int | None, wide: bool) -> None:
    more = list(found[0].more)
    named, stale = any(each.name for each in found), any(each.stale_since for each in found)
    headers = ["partition", *(["name"] if named else []), "state", *(["stale since"] if stale else [])]
    rows = [
        [
            each.partition or "all of it",
            *([each.name] if named else []),
            str(each),
            *([each.stale_since] if stale else []),
            *(each.more.get(column) for column in more),
        ]
        for each in found
    ]
    print_table(
        [*headers, *(column.replace("_", " ") for column in more)],
        rows,
        limit=limit,
        ids=["partition"],
        wide=wide,
    )
