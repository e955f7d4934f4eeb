"""The environment of the Dagster processes that this project starts.

By default, Dagster's own tables are in the data's database, in the schema `dagster`.
"""

import os
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dagster_backfills.postgres.connection import connect
from dagster_backfills.postgres.embedded import resolve_database_url
from dagster_backfills.postgres.url import checked_url
from dagster_backfills.state import project_file, state_dir

_SCHEMA = "dagster"
_ADVISORY_LOCK = 7_204_431_119  # an arbitrary constant, for "creating Dagster's tables" within a database
# Comments on the schema that distinguish an interrupted creation from a complete one.
_CREATING, _COMPLETE = "Being created by backfills", "The tables of Dagster, created by backfills"

# The first day of each domain's data, for its daily partitions. Passed as variables, because a code location loads
# without a database. Each query reads one index entry.
_FIRST = {
    "SCORING_FIRST_DAY": "select min(joined_date) from scoring.members",
    "KINTELL_FIRST_DAY": "select (min(scheduled_at) at time zone 'UTC')::date from kintell.kintell_sessions",
}


def dagster_environment() -> dict[str, str]:
    """The variables that make `dagster`, its daemon and its runs use this project's instance and database.

    Starts the embedded server if needed and creates Dagster's tables, unless the user's own instance stores them
    elsewhere. Variables that the user has set keep their values.
    """
    return {
        **first_days(resolve_database_url()),
        "DATABASE_URL": resolve_database_url(),
        **({"DAGSTER_POSTGRES_URL": dagster_database_url()} if stores_in_postgres_here() else {}),
        "DAGSTER_HOME": os.environ.get("DAGSTER_HOME", "").strip() or str(_own_home()),
        # Dagster writes materializations in batches of this size: 1,000 take about a second instead of half a minute.
        "DAGSTER_EVENT_BATCH_SIZE": os.environ.get("DAGSTER_EVENT_BATCH_SIZE", "").strip() or "1000",
    }


def stores_in_postgres_here() -> bool:
    """Whether the instance uses our storage: it is ours, or the `dagster.yaml` in `DAGSTER_HOME` names it."""
    given = os.environ.get("DAGSTER_HOME", "").strip()
    file = Path(given) / "dagster.yaml"
    return not (given and file.is_file()) or "dagster_backfills.instance.storage" in file.read_text("utf-8")


def dagster_database_url() -> str:
    """The URL of Dagster's own tables: `DAGSTER_POSTGRES_URL`, else the schema `dagster` in the data's database.

    Starts the embedded server and creates the schema with its tables if needed.
    """
    given = os.environ.get("DAGSTER_POSTGRES_URL", "").strip()
    if given:
        return checked_url(given, "DAGSTER_POSTGRES_URL")
    url = resolve_database_url()
    dagster_url = with_search_path(url, _SCHEMA)
    _create_tables(url, dagster_url)
    return dagster_url


def with_search_path(url: str, schema: str) -> str:
    """A `postgresql://` URL of the same database with `schema` as search path, for psycopg2 and SQLAlchemy."""
    given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    given["options"] = f"{given.get('options', '')} -csearch_path={schema}".strip()
    user, password, name = (quote(given.pop(key, ""), safe="") for key in ("user", "password", "dbname"))
    login = f"{user}:{password}@" if password else f"{user}@"
    return f"postgresql://{login if user else ''}/{name}?{urlencode(given, quote_via=quote)}"


def first_days(url: str) -> dict[str, str]:
    """Variables with the first day of each domain's data. Leaves out those that the user has set."""
    unset = {name: query for name, query in _FIRST.items() if not os.environ.get(name, "").strip()}
    days: dict[str, str] = {}
    if not unset:
        return days
    with suppress(psycopg.Error), connect(url, autocommit=True) as conn:
        for name, query in unset.items():
            # The table may be missing or not readable for this role.
            with suppress(psycopg.Error):
                row = conn.execute(query).fetchone()
                day = row[0] if row else None
                if isinstance(day, date) and day < datetime.now(UTC).date():
                    days[name] = day.isoformat()
    return days


def _own_home() -> Path:
    """A Dagster home whose `dagster.yaml` links to the project's."""
    home, target = state_dir() / "dagster_home", project_file("dagster.yaml")
    home.mkdir(parents=True, exist_ok=True)
    link = home / "dagster.yaml"
    if target.exists() and not (link.is_symlink() and link.readlink() == target):
        new = link.with_name(f"dagster.yaml.{os.getpid()}")
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)
    return home


def _create_tables(url: str, dagster_url: str) -> None:
    """Create the schema with Dagster's tables, unless it exists. Safe for concurrent processes and interruptions."""
    with connect(url, autocommit=True) as conn:
        if _is_created(conn):
            return
        conn.execute("select pg_advisory_lock(%s)", [_ADVISORY_LOCK])
        if _is_created(conn):
            return
        with conn.transaction():
            conn.execute(f"drop schema if exists {_SCHEMA} cascade")
            conn.execute(f"create schema {_SCHEMA}")
            conn.execute(f"comment on schema {_SCHEMA} is '{_CREATING}'")
        from dagster_postgres import DagsterPostgresStorage  # Dagster takes a second to import

        from dagster_backfills.instance.storage.sessions import pinned_url

        DagsterPostgresStorage(pinned_url(dagster_url), should_autocreate_tables=True)
        with suppress(psycopg.errors.InsufficientPrivilege):
            conn.execute(f"comment on schema {_SCHEMA} is '{_COMPLETE}'")


def _is_created(conn: psycopg.Connection) -> bool:
    """Whether the schema exists and its creation was not interrupted. A schema that we did not create counts."""
    row = conn.execute(
        "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", [_SCHEMA]
    ).fetchone()
    return row is not None and row[0] != _CREATING
