"""`backfills migrate`: brings the database to the state that this version of the program needs."""

from typing import Annotated

import typer

from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import Json, print_json, print_table, say
from dagster_backfills.domain_switches import VARIABLE, switched_off, switched_on
from dagster_backfills.instance.dagster_home import dagster_database_url, stores_in_postgres_here
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.migrations import apply_migrations, apply_roles, migration_state


def migrate(
    status: Annotated[
        bool,
        typer.Option("--status", help="Only show what is applied and what waits. Exit code 1 if any waits."),
    ] = False,
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Then apply sql/roles.sql: who may do what. Needs an administrator."),
    ] = False,
    json: Json = False,
) -> None:
    """Apply the migrations that the database lacks. Doing it again, or twice at once, does no harm."""
    url = resolve_database_url()
    applied = [] if status else apply_migrations(url, log=say)
    if not status and stores_in_postgres_here():
        # Dagster's own tables, too: what runs later need not be allowed to make any.
        dagster_database_url()
    if roles and not status:
        apply_roles(url)
    state = migration_state(url)
    if json:
        print_json(
            {
                "applied_now": applied,
                "applied": state.applied,
                "pending": state.pending,
                "domains": switched_on(),
            }
        )
    elif status:
        rows = [(name, "applied") for name in state.applied] + [(name, "waits") for name in state.pending]
        print_table(["migration", "state"], sorted(rows), ids=["migration"])
    else:
        say(*(f"Applied {name}." for name in applied))
        said = "1 migration" if len(state.applied) == 1 else f"{len(state.applied)} migrations"
        say(f"The database is up to date: {said}.")
        if switched_off():
            on = ", ".join(switched_on()) or "none. A declaration needs none"
            say(f"Domains that are switched on ({VARIABLE}): {on}.")
        if roles:
            say("The roles are as sql/roles.sql says.")
    if state.pending:
        raise typer.Exit(FAILURES)
