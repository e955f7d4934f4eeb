"""`backfills progress`: the state of every cohort, and computing those that need it."""

from dataclasses import asdict
from typing import Annotated

import typer

from dagster_backfills.cli.domain_runs import database, refresh
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import confirm, print_json, print_table, say
from dagster_backfills.domains.progress.status import (
    CohortStatus,
    find_cohorts,
    get_cohort,
    list_cohorts,
    next_cohort,
    select_cohorts,
)
from dagster_backfills.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Precomputed statistics of cohorts and students.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]


@app.command()
def status(
    cohort: Annotated[str, typer.Argument(help="One cohort's id; all cohorts without it.")] = "",
    school: Annotated[str, typer.Option(help="Only the cohorts of this school, by id or name.")] = "",
    json: Json = False,
) -> None:
    """Every cohort by school and name: has it stats, how many students have, is it stale."""
    with database() as conn:
        cohorts = [get_cohort(conn, cohort)] if cohort else list_cohorts(conn, school=school or None)
    _show(cohorts, json)


@app.command()
def find(
    text: Annotated[str, typer.Argument(help="Part of a cohort's name, in any case.")], json: Json = False
) -> None:
    """The cohorts whose name contains a text."""
    with database() as conn:
        cohorts = find_cohorts(conn, text)
    if not cohorts and not json:
        say(f"No cohort's name contains {text!r}.")
    _show(cohorts, json)


@app.command("next")
def next_(json: Json = False) -> None:
    """The cohort that should be computed next: one without stats first, then the longest stale."""
    with database() as conn:
        cohort = next_cohort(conn)
    if cohort is None and not json:
        say("No cohort needs a backfill.")
    _show([cohort] if cohort else [], json)


@app.command()
def run(
    cohorts: Annotated[
        list[str] | None, typer.Argument(help="Cohort ids; without any, see the options.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only cohorts without (all) their rows.")
    ] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Only cohorts that changed since.")] = False,
    next_one: Annotated[bool, typer.Option("--next", help="Only the cohort that `next` shows.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Every cohort, whether it needs it or not.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Compute both statistics. With no argument: everything that is missing, stale or failed; ask first."""
    chosen = [
        name
        for name, on in [("missing", missing), ("stale", stale), ("next", next_one), ("all", force)]
        if on
    ]
    if len(chosen) + bool(cohorts) > 1:
        raise UserError(
            "Cohort ids, --missing, --stale, --next and --force exclude each other.", "Give one of them."
        )
    which = chosen[0] if chosen else "named" if cohorts else "needed"
    keys = _keys(list(cohorts or []), which)
    before = _statuses()
    if not json:
        _summary("Before", before)
    if not keys:
        say("Nothing to do: no cohort needs it.")
        _result(before, 0, json)
        return
    confirm(f"Compute the statistics of {len(keys):,} cohort{'s' if len(keys) != 1 else ''}?", yes)
    by_name = which in ("named", "next")
    code = refresh("progress", {"which": "named", "partitions": keys} if by_name else {"which": which})
    after = _statuses()
    if not json:
        _summary("After", after)
    _result(after, len(keys), json)
    if _open_failures():
        say("Not all could be written: backfills failures list")
        code = code or FAILURES
    raise typer.Exit(code)


def _keys(cohorts: list[str], which: str) -> list[str]:
    """The cohorts that are asked for. Raises UserError for one that there is not."""
    with database() as conn:
        if which == "named":
            return [get_cohort(conn, cohort).cohort_id for cohort in cohorts]
        if which == "next":
            found = next_cohort(conn)
            return [found.cohort_id] if found else []
        return select_cohorts(conn, which)


def _statuses() -> list[CohortStatus]:
    with database() as conn:
        return list_cohorts(conn)


def _open_failures() -> int:
    with database() as conn:
        row = conn.execute(
            "select count(*) from backfill.failures where asset like 'progress/%' and resolved_at is null"
        ).fetchone()
    return row[0] if row else 0


def _summary(title: str, cohorts: list[CohortStatus]) -> None:
    missing = sum(c.is_missing for c in cohorts)
    stale = sum(c.stale_since is not None for c in cohorts)
    students, with_stats = sum(c.students for c in cohorts), sum(c.students_with_stats for c in cohorts)
    say(
        f"{title}: {len(cohorts):,} cohorts, {sum(c.needs_backfill for c in cohorts):,} need a backfill "
        f"({missing:,} missing, {stale:,} stale); {with_stats:,} of {students:,} students have stats."
    )


def _result(cohorts: list[CohortStatus], computed: int, json: bool) -> None:
    if json:
        need = [c.cohort_id for c in cohorts if c.needs_backfill]
        print_json({"computed": computed, "cohorts": len(cohorts), "need_backfill": need})


def _show(cohorts: list[CohortStatus], json: bool) -> None:
    if json:
        print_json([asdict(cohort) for cohort in cohorts])
        return
    print_table(
        ["school", "cohort", "id", "has stats", "students", "with stats", "classes", "needs backfill", "stale since"],
        [
            (c.school_name, c.cohort_name, c.cohort_id, c.has_stats, c.students, c.students_with_stats, c.classes,
             c.needs_backfill, c.stale_since)
            for c in cohorts
        ],
    )  # fmt: skip
