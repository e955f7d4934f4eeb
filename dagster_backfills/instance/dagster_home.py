"""The environment of every Dagster process that this project starts. Not here: what `dagster.yaml` says.

Dagster keeps its own tables in the same database as the data, in the schema `dagster`, unless told otherwise.
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
_ADVISORY_LOCK = (
    7_204_431_119  # any constant; names "the first creation of Dagster's tables" within a database
)
# Comments on the schema, by which a creation that was killed is told from one that is complete.
_CREATING, _COMPLETE = "Being created by backfills", "The tables of Dagster, created by backfills"

# Where the data of each day begins, so that Dagster's days do: a code location itself loads without a database.
# Both are read off the end of an index.
_FIRST = {
    "SCORING_FIRST_DAY": "select min(joined_date) from scoring.members",
    "KINTELL_FIRST_DAY": "select (min(scheduled_at) at time zone 'UTC')::date from kintell.kintell_sessions",
}


def dagster_environment() -> dict[str, str]:
    """The variables that make `dagster`, its daemon and its runs use this project's instance and database.

    Starts the embedded server if need be and creates Dagster's tables. What the user has set is left as it is, and an
    instance of the user's own, which stores elsewhere, is given no tables.
    """
    return {
        **first_days(resolve_database_url()),
        "DATABASE_URL": resolve_database_url(),
        **({"DAGSTER_POSTGRES_URL": dagster_database_url()} if stores_in_postgres_here() else {}),
        "DAGSTER_HOME": os.environ.get("DAGSTER_HOME", "").strip() or str(_own_home()),
        # The materializations of a wide run are written in batches: 1,000 in about a second, not half a minute.
        "DAGSTER_EVENT_BATCH_SIZE": os.environ.get("DAGSTER_EVENT_BATCH_SIZE", "").strip() or "1000",
    }


def stores_in_postgres_here() -> bool:
    """Whether the instance has our storage: it is ours, or the `dagster.yaml` of `DAGSTER_HOME` names it."""
    given = os.environ.get("DAGSTER_HOME", "").strip()
    file = Path(given) / "dagster.yaml"
    return not (given and file.is_file()) or "dagster_backfills.instance.storage" in file.read_text("utf-8")


def dagster_database_url() -> str:
    """Where Dagster keeps its own tables: `DAGSTER_POSTGRES_URL`, else a schema of the data's database.

    Starts the embedded server if need be and creates the schema with its tables.
    """
    given = os.environ.get("DAGSTER_POSTGRES_URL", "").strip()
    if given:
        return checked_url(given, "DAGSTER_POSTGRES_URL")
    url = resolve_database_url()
    dagster_url = with_search_path(url, _SCHEMA)
    _create_tables(url, dagster_url)
    return dagster_url


def with_search_path(url: str, schema: str) -> str:
    """The same database as a `postgresql://` URL, good for psycopg2 and SQLAlchemy, whose tables are `schema`'s."""
    given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    given["options"] = f"{given.get('options', '')} -csearch_path={schema}".strip()
    user, password, name = (quote(given.pop(key, ""), safe="") for key in ("user", "password", "dbname"))
    login = f"{user}:{password}@" if password else f"{user}@"
    return f"postgresql://{login if user else ''}/{name}?{urlencode(given, quote_via=quote)}"


def first_days(url: str) -> dict[str, str]:
    """The variables that say so, of data that there is; what the user has set is left as it is."""
    wanted = {name: query for name, query in _FIRST.items() if not os.environ.get(name, "").strip()}
    found: dict[str, str] = {}
    if not wanted:
        return found
    with suppress(psycopg.Error), connect(url, autocommit=True) as conn:
        for name, query in wanted.items():
            # The table may not be there, or not be this role's to read.
            with suppress(psycopg.Error):
                row = conn.execute(query).fetchone()
                day = row[0] if row else None
                if isinstance(day, date) and day < datetime.now(UTC).date():
                    found[name] = day.isoformat()
    return found


def _own_home() -> Path:
    """A Dagster home whose `dagster.yaml` is always the project's current one."""
    home, ours = state_dir() / "dagster_home", project_file("dagster.yaml")
    home.mkdir(parents=True, exist_ok=True)
    there = home / "dagster.yaml"
    if ours.exists() and not (there.is_symlink() and there.readlink() == ours):
        new = there.with_name(f"dagster.yaml.{os.getpid()}")
        new.unlink(missing_ok=True)
        new.symlink_to(ours)
        new.replace(there)
    return home


def _create_tables(url: str, dagster_url: str) -> None:
    """Create the schema and Dagster's tables in it, once and whole, however many processes come first."""
    with connect(url, autocommit=True) as conn:
        if _is_settled(conn):
            return
        conn.execute("select pg_advisory_lock(%s)", [_ADVISORY_LOCK])
        if _is_settled(conn):
            return
        with conn.transaction():
            conn.execute(f"drop schema if exists {_SCHEMA} cascade")
            conn.execute(f"create schema {_SCHEMA}")
            conn.execute(f"comment on schema {_SCHEMA} is '{_CREATING}'")
        from dagster_backfills.instance.storage import BatchedPostgresStorage

        BatchedPostgresStorage(dagster_url)
        with suppress(psycopg.errors.InsufficientPrivilege):
            conn.execute(f"comment on schema {_SCHEMA} is '{_COMPLETE}'")


def _is_settled(conn: psycopg.Connection) -> bool:
    """Whether the schema is there, unless a creation of it was cut short. One that others made is theirs."""
    row = conn.execute(
        "select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = %s", [_SCHEMA]
    ).fetchone()
    return row is not None and row[0] != _CREATING
