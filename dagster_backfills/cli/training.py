"""`backfills training`: the completion records of every organization, creating what is missing, and the undo."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from dagster_backfills.cli.domain_runs import database, launch
from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import confirm, duration, print_json, print_table, say
from dagster_backfills.domains.training.rollback import Preview, preview
from dagster_backfills.domains.training.status import (
    OrganizationStatus,
    get_organization,
    list_failures,
    list_organizations,
    run_report,
)
from dagster_backfills.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Training video completions of every member.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def status(
    organization: Annotated[str, typer.Argument(help="One organization's id; all without it.")] = "",
    json: Json = False,
) -> None:
    """Every organization, oldest first: members, records, what is missing, progress; and the members that failed."""
    with database() as conn:
        found = [get_organization(conn, organization)] if organization else list_organizations(conn)
        failures = list_failures(conn, organization or None)
    if json:
        rows = [{**asdict(each), "needs_backfill": each.needs_backfill} for each in found]
        print_json({"organizations": rows, "failures": [asdict(failure) for failure in failures]})
        return
    _show(found)
    for failure in failures:
        who = f"member {failure.member_id!r}" if failure.member_id is not None else "all of it"
        say(f"{failure.organization_id}: {who}: {failure.message} ({failure.attempts} attempts)")


@app.command()
def run(
    org: Annotated[
        list[str] | None, typer.Option("--org", help="Only this organization; may be given again.")
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Create the missing records, of one organization or of all, oldest first; and count their progress."""
    chosen = list(dict.fromkeys(org or []))
    with database() as conn:
        before = [get_organization(conn, each) for each in chosen] if chosen else list_organizations(conn)
    if not before:
        say("Nothing to do: there is no organization.")
        return
    missing = sum(each.missing for each in before)
    say(f"{len(before):,} organizations, {missing:,} records missing.")
    confirm(f"Fill {_number(len(before), 'organization')}?", yes)
    choice = {"which": "named", "partitions": chosen} if chosen else {"which": "all"}
    run_id, code = launch("refresh_training_completions", choice)
    with database() as conn:
        report = run_report(conn, run_id)
        failures = [f for f in list_failures(conn) if not chosen or f.organization_id in chosen]
    if json:
        print_json({"run_id": run_id, **asdict(report)})
    else:
        say(
            f"{_number(report.organizations, 'organization')}, {_number(report.members, 'member')}, "
            f"{_number(report.videos, 'video')}: {report.records_created:,} records created, "
            f"{report.records_already_there:,} already there, {report.failures:,} failed, "
            f"{duration(report.seconds)}.",
            f"To undo: backfills training rollback {run_id}",
        )
    if failures:
        say("Not all could be written: backfills training status")
    raise typer.Exit(code or (FAILURES if failures else 0))


@app.command()
def rollback(
    backfill: Annotated[
        str, typer.Argument(help="The backfill: Dagster's backfill id, or a run's id.", show_default=False)
    ] = "",
    execute: Annotated[
        bool, typer.Option("--execute/--dry-run", help="Remove the records, or only say how many.")
    ] = False,
    remove_all_incomplete: Annotated[
        bool,
        typer.Option(
            "--remove-all-incomplete", help="Every record that is not completed, whoever created it."
        ),
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Undo one backfill: remove the records that it created and nobody has completed. A dry run unless --execute."""
    if bool(backfill) == remove_all_incomplete:
        raise UserError(
            "Nothing says what to undo."
            if not backfill
            else "One backfill and all of them exclude each other.",
            "Give a backfill's id, or --remove-all-incomplete.",
        )
    with database() as conn:
        plan = preview(conn, backfill or None)
    _say_plan(plan)
    result: dict[str, Any] = {"remove": plan.remove, "keep": plan.keep, "dry_run": not execute, "removed": 0}
    code = 0
    if execute and plan.remove:
        confirm(f"Remove {plan.remove:,} records?", yes)
        config = {"backfill": backfill, "remove_all_incomplete": remove_all_incomplete, "dry_run": False}
        run_id, code = launch("rollback_training_backfill", config)
        with database() as conn:
            left = preview(conn, backfill or None).remove
        result |= {"removed": plan.remove - left, "run_id": run_id}
        say(f"{plan.remove - left:,} records removed.")
    elif not execute:
        say("A dry run: nothing was removed. To remove them, add --execute.")
    if json:
        print_json(result)
    raise typer.Exit(code)


def _say_plan(plan: Preview) -> None:
    say(
        f"{plan.remove:,} records to remove and {plan.keep:,} to keep, because they have been completed since, "
        f"in {_number(len(plan.organizations), 'organization')}."
    )


def _show(organizations: list[OrganizationStatus]) -> None:
    print_table(
        ["organization", "id", "members", "records", "missing", "completed", "percent", "failed", "needs backfill",
         "stale since"],
        [
            (each.organization_name, each.organization_id, each.members, each.records, each.missing, each.completed,
             each.percent, each.failed_members, each.needs_backfill, each.stale_since)
            for each in organizations
        ],
    )  # fmt: skip


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
