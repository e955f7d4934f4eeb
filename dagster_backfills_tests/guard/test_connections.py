"""Connections are opened in one module, which pins their session settings. No other module calls a driver."""

import ast
from collections.abc import Iterator
from pathlib import Path

import dagster_backfills

PACKAGE = Path(dagster_backfills.__file__).parent
ALLOWED = {
    "postgres/connection.py": {"psycopg.connect"},
    "dagster/resource.py": {"create_engine"},  # its creator function is that of `connection`
    "instance/storage/sessions.py": {"create_engine"},  # with its own plugin, which pins the session
}
MAKERS = {"connect": {"psycopg", "psycopg2", "Connection", "AsyncConnection"}}


def calls(path: Path) -> Iterator[str]:
    """The calls in the file that open a connection."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name in MAKERS.get(node.func.attr, ()):
                yield f"{name}.{node.func.attr}"
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "create_engine"
        ):
            yield "create_engine"
        elif isinstance(node, ast.ImportFrom) and node.module in ("psycopg", "psycopg2"):
            yield from (f"{node.module}.connect" for name in node.names if name.name == "connect")


def test_only_one_module_opens_connections():
    found = {str(path.relative_to(PACKAGE)): set(calls(path)) for path in PACKAGE.rglob("*.py")}
    assert {path: made for path, made in found.items() if made} == ALLOWED
