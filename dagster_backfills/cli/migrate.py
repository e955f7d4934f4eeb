"""`backfills migrate`: applies the migrations that this version needs."""

from typing import Annotated

import typer

from dagster_backfills.cli.errors import FAILURES
from dagster_backfills.cli.output import Json, print_json, print_table, say
from dagster_backfills.domain_switches import VARIABLE, disabled_domains, enabled_domains
from dagster_backfills.instance.dagster_home import dagster_database_url, stores_in_postgres_here
from dagster_backfills.names import counted
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.migrations import apply_migrations, apply_roles, migration_state


def migrate(
    status: Annotated[
        bool,
        typer.Option("--status", help="Only list the migrations. Exits with 1 if any is pending."),
    ] = False,
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Also apply sql/roles.sql (roles and grants). Needs an administrator."),
    ] = False,
    json: Json = False,
) -> None:
    """Apply pending migrations. Safe to repeat and to run twice at the same time."""
    url = resolve_database_url()
    applied = [] if status else apply_migrations(url, log=say)
    if not status and stores_in_postgres_here():
        # This creates Dagster's tables too, so that later commands don't need the right to.
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
                "domains": enabled_domains(),
            }
        )
    elif status:
        rows = [(name, "applied") for name in state.applied] + [(name, "pending") for name in state.pending]
        print_table(["migration", "state"], sorted(rows), ids=["migration"])
    else:
        say(*(f"Applied {name}." for name in applied))
        say(f"The database is up to date: {counted(len(state.applied), 'migration')}.")
        if disabled_domains():
            on = ", ".join(enabled_domains()) or "none, and declarations need none"
            say(f"Enabled domains ({VARIABLE}): {on}.")
        if roles:
            say("Applied sql/roles.sql.")
    if state.pending:
        raise typer.Exit(FAILURES)
