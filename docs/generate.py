"""Writes `docs/reference/` from the code: the command line, the definitions, the tables and views. `make reference`.

Nothing in those pages is written by hand: a text that should be better is mended where it comes from.
"""

import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

REFERENCE = Path(__file__).with_name("reference")
_MADE = "<!-- Made by `make reference`. -->\n"
_SCHEMAS = ["backfill", "jobs", "kintell", "operations", "progress", "scoring", "training"]
_RELATIONS = """
select
    n.nspname as schema, c.relname as name, c.relkind in ('v', 'm') as is_view,
    coalesce(obj_description(c.oid, 'pg_class'), '') as comment, c.oid
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace
where n.nspname = any(%s) and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
order by n.nspname, is_view, c.relname
"""
_COLUMNS = """
select
    a.attname as name, format_type(a.atttypid, a.atttypmod) as type, not a.attnotnull as nullable,
    coalesce(col_description(a.attrelid, a.attnum), '') as comment,
    exists (
        select from pg_index as i
        where i.indrelid = a.attrelid and i.indisprimary and a.attnum = any(i.indkey)
    ) as is_key
from pg_attribute as a
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""


def pages(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """The pages by file name. The connection is to a migrated database."""
    return {
        "command-line.md": _page("Command line", command_line()),
        "definitions.md": _page("Assets, checks, jobs, schedules and sensors", definitions()),
        "tables.md": _page("Tables and views", tables(conn)),
    }


def _page(title: str, lines: Iterator[str]) -> str:
    return f"{_MADE}# {title}\n\n" + "\n".join(lines).rstrip() + "\n"


def command_line() -> Iterator[str]:
    """Every command with its arguments and options, as Typer knows them."""
    import typer

    from dagster_backfills.cli.app import COMMANDS, app

    group: Any = typer.main.get_command(app)
    yield f"{group.help}\n\n{group.epilog}\n"
    for name in COMMANDS:
        context = group.commands[name].make_context(name, [], resilient_parsing=True)
        yield from _command(f"backfills {name}", context.command)


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"## `{name}`\n"
    yield f"{' '.join((command.help or '').split())}\n"
    shown = [
        each for each in command.params if each.name not in ("help", "install_completion", "show_completion")
    ]
    if shown:
        yield from _table(["argument or option", "meaning", "default"], [_parameter(each) for each in shown])
    for sub in getattr(command, "commands", {}).values():
        yield from _command(f"{name} {sub.name}", sub)


def _parameter(each: Any) -> tuple[str, str, str]:
    if each.param_type_name == "argument":
        names = each.metavar or each.name.upper()
    else:
        names = ", ".join([*each.opts, *each.secondary_opts])
    default = each.default
    plain = default in (None, "", False, ()) or callable(default)
    return f"`{names}`", getattr(each, "help", "") or "", "" if plain else f"`{default}`"


def definitions() -> Iterator[str]:
    """What the code location holds, with the descriptions that the UI shows."""
    from dagster_backfills.definitions import defs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        location = defs()
        repository, graph = location.get_repository_def(), location.resolve_asset_graph()
    yield "## Assets\n"
    described = [n for n in graph.asset_nodes if not n.metadata.get("dagster/auto_created_stub_asset")]
    nodes = sorted(described, key=lambda node: node.key.path)
    rows = []
    for node in nodes:
        by = node.partitions_def
        rows.append(
            (f"`{node.key.to_user_string()}`", type(by).__name__ if by else "", node.description or "")
        )
    yield from _table(["asset", "partitions", "description"], rows)
    yield "## Checks\n"
    checks = sorted(graph.asset_check_keys, key=lambda key: (key.asset_key.path, key.name))
    yield from _table(
        ["check", "asset", "description"],
        [
            (
                f"`{key.name}`",
                f"`{key.asset_key.to_user_string()}`",
                graph.get_check_spec(key).description or "",
            )
            for key in checks
        ],
    )
    yield "## Jobs\n"
    jobs = [repository.get_job(name) for name in sorted(repository.job_names) if not name.startswith("__")]
    yield from _table(["job", "description"], [(f"`{job.name}`", job.description or "") for job in jobs])
    yield "## Schedules\n"
    yield from _table(
        ["schedule", "when", "description"],
        [
            (
                f"`{each.name}`",
                f"`{each.cron_schedule}` {each.execution_timezone or 'UTC'}",
                each.description or "",
            )
            for each in sorted(repository.schedule_defs, key=lambda each: each.name)
        ],
    )
    yield "## Sensors\n"
    yield "`failure_email` and `failure_slack` are there where they are [set up](../how-to/notifications.md).\n"
    yield from _table(
        ["sensor", "every", "description"],
        [
            (f"`{each.name}`", f"{each.minimum_interval_seconds or 30} s", each.description or "")
            for each in sorted(repository.sensor_defs, key=lambda each: each.name)
        ],
    )


def tables(conn: psycopg.Connection[Any]) -> Iterator[str]:
    """Tables and views with their columns and the catalog's comments."""
    with conn.cursor(row_factory=dict_row) as cursor:
        relations = cursor.execute(_RELATIONS, [_SCHEMAS]).fetchall()
        schema = ""
        for each in relations:
            if each["schema"] != schema:
                schema = each["schema"]
                yield f"## Schema `{schema}`\n"
            kind = "view" if each["is_view"] else "table"
            yield f"### `{schema}.{each['name']}` ({kind})\n"
            if each["comment"]:
                yield f"{each['comment']}\n"
            columns = cursor.execute(_COLUMNS, [each["oid"]]).fetchall()
            yield from _table(
                ["column", "type", "", "meaning"],
                [(f"`{c['name']}`", c["type"], _remark(c, each["is_view"]), c["comment"]) for c in columns],
            )


def _remark(column: dict[str, Any], is_view: bool) -> str:
    if column["is_key"]:
        return "key"
    return "may be null" if column["nullable"] and not is_view else ""


def _table(headers: list[str], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield f"| {' | '.join('---' for _ in headers)} |"
    for row in rows:
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def main() -> None:
    """Write the pages, from a migrated database of this moment's."""
    from dagster_backfills.postgres.embedded import EmbeddedServer
    from dagster_backfills.postgres.migrations import apply_migrations

    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        server.start()
        try:
            apply_migrations(server.url())
            with psycopg.connect(server.url(), autocommit=True) as conn:
                made = pages(conn)
        finally:
            server.delete()
    REFERENCE.mkdir(exist_ok=True)
    for name, text in made.items():
        (REFERENCE / name).write_text(text)
        sys.stdout.write(f"docs/reference/{name}\n")


if __name__ == "__main__":
    main()
