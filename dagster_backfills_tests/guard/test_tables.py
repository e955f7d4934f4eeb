"""Every table of every schema is in one of the lists here, and `sql/roles.sql` grants the rights of its list."""

import psycopg
import pytest

from dagster_backfills_tests.guard.conftest import SOURCES, Guarded

# Written by the writer, visible to the reader: results and accounts, without personal data except scores.
RESULTS = {
    "backfill": ["batches", "runs", "stale_marks"],
    "kintell": ["daily_session_summary"],
    "progress": ["cohort_stats", "user_progress_stats"],
    "scoring": ["chain_days", "churn_risk_scores", "coach_actions", "commitment_scores"],
    "training": ["organization_training_progress"],
}
# Written by the writer, not visible to the reader, with the reason.
KEPT = {
    "backfill.source_positions": "the refresh sensors' own: how far the sources are looked through",
    "backfill.failures": "messages of the database, which quote rows",
    "backfill.controls": "what operators have set",
    "backfill.journal": "rows of other tables as they were",
    "backfill.undone": "names of partitions",
    "jobs.background_jobs": "inputs and outputs of applications' jobs",
    "jobs.job_queue": "which jobs wait; the views count them",
    "kintell.backfill_job_batches": "the import's own; the view of jobs has the counts",
    "kintell.backfill_job_claims": "the import's own: the ids that a batch claimed",
    "kintell.backfill_job_updates": "rows as they were before an import, for its rollback",
    "kintell.backfill_jobs": "names of files; the views have the rest",
    "kintell.backfill_row_errors": "lines of files as they came",
    "kintell.event_outbox": "events with what was imported",
    "kintell.event_publisher": "the publisher's own: how far it is",
    "kintell.header_mappings": "the columns that users assigned to headers of files",
    "kintell.kintell_sessions": "who met whom",
    "kintell.users": "names and addresses; imports add users",
    "operations.job_runs": "names of partitions; the views count by day",
    "scoring.coach_actions_done": "who of the coaches did what, and when",
    "training.employee_training_video_completions": "which person has seen what",
}
# Written by migrations, read-only for all others.
NOTED = {"backfill.schema_migrations": "noted"}
# Append-only for the writer; no role may change rows.
ADDED_TO = {"backfill.audit": "added to"}
# Columns that the writer may not change, although it may change others of the row.
NEWEST_SCORES = "scoring.members"

WHAT_TO_DO = (
    "These tables are in no list of {file}: {tables}. For each, say whose it is. Applications write it: add it to the"
    " sources in sql/roles.sql, so that runs can't, and to SOURCES in guard/conftest.py. Runs write it and dashboards"
    " show it: add it to the reader's list in sql/roles.sql and to RESULTS. Else: to KEPT, with the reason."
)


def listed() -> dict[str, str]:
    """The list that each table is in, by its name."""
    lists = (("source", SOURCES), ("result", RESULTS))
    found = {f"{schema}.{name}": kind for kind, each in lists for schema in each for name in each[schema]}
    assert not found.keys() & KEPT.keys()
    return found | dict.fromkeys(KEPT, "kept") | NOTED | ADDED_TO


def tables(conn: psycopg.Connection) -> set[str]:
    """All tables of the migrations, without Dagster's own."""
    rows = conn.execute(
        "select n.nspname || '.' || c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'p') and n.nspname !~ '^pg_'"
        " and n.nspname not in ('information_schema', 'public', 'dagster')"
    )
    return {row[0] for row in rows}


def unlisted(conn: psycopg.Connection) -> str:
    """What to do about tables that are in no list; empty if there are none."""
    missing = ", ".join(sorted(tables(conn) - listed().keys()))
    return missing and WHAT_TO_DO.format(file="guard/test_tables.py", tables=missing)


def test_every_table_is_in_exactly_one_list(guarded: Guarded) -> None:
    rights = {
        "source": ({"SELECT"}, set()),
        "result": ({"SELECT", "INSERT", "UPDATE", "DELETE"}, {"SELECT"}),
        "noted": ({"SELECT"}, {"SELECT"}),
        "added to": ({"SELECT"}, set()),
        "kept": ({"SELECT", "INSERT", "UPDATE", "DELETE"}, set()),
    }
    with guarded.connect() as conn:
        assert not unlisted(conn), unlisted(conn)
        gone = sorted(listed().keys() - tables(conn))
        assert not gone, f"No migration makes these: take them from the lists and from sql/roles.sql: {gone}"
        granted: dict[tuple[str, str], set[str]] = {}
        for table, role, right in conn.execute(
            "select n.nspname || '.' || c.relname, a.grantee::regrole::text, a.privilege_type"
            " from pg_class as c join pg_namespace as n on n.oid = c.relnamespace"
            " cross join aclexplode(c.relacl) as a where a.grantee <> 0 and a.privilege_type <> 'MAINTAIN'"
        ):
            granted.setdefault((table, role), set()).add(right)
    for table, kind in listed().items():
        for role, expected in zip(("writer", "reader"), rights[kind], strict=True):
            found = granted.get((table, f"backfills_{role}"), set())
            assert found == expected, f"sql/roles.sql gives the {role} {sorted(found)} on {table}, a {kind}"
        assert (table, "backfills_enqueuer") not in granted


def test_column_rights_exist_only_on_the_newest_scores_and_on_append_only_tables(guarded: Guarded) -> None:
    with guarded.connect() as conn:
        rows = conn.execute(
            "select distinct a.attrelid::regclass::text, r.grantee::regrole::text, r.privilege_type"
            " from pg_attribute as a cross join aclexplode(a.attacl) as r where a.attrelid >= 16384"
        ).fetchall()
    assert sorted(rows) == [
        *((table, "backfills_writer", "INSERT") for table in ADDED_TO),
        (NEWEST_SCORES, "backfills_writer", "UPDATE"),
    ]


def test_a_table_in_no_list_is_named_with_what_to_do(guarded: Guarded) -> None:
    with guarded.connect() as conn, conn.transaction(force_rollback=True):
        conn.execute("create table training.new_source (id bigint)")
        assert "training.new_source" in unlisted(conn)
        assert "sql/roles.sql" in unlisted(conn)


@pytest.mark.parametrize("role", ["writer", "reader", "enqueuer"])
def test_only_the_writer_can_use_dagsters_tables(guarded: Guarded, role: str) -> None:
    with guarded.connect() as conn:
        (may,) = conn.execute(
            "select array_agg(distinct has_table_privilege(%s, c.oid, 'SELECT, INSERT')) from pg_class as c"
            " where c.relkind = 'r' and c.relnamespace = 'dagster'::regnamespace",
            [f"backfills_{role}"],
        ).fetchone()
    assert may == [role == "writer"]
