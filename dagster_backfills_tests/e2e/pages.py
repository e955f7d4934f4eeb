"""A page of the docs as a test: its files are written, its commands run, and what it says they print is looked for."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import psycopg

from dagster_backfills_tests.e2e.own_project import OwnProject

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"`([\w./]+\.\w+)`:\s*\Z")
INSTALLED = (
    "pip install dagster-backfills"  # what the project's environment is made with, from the built wheel
)


def follow(page: Path, project: OwnProject) -> Iterator[str]:
    """Do what the page says, in its order; yields each command that was run."""
    text = page.read_text()
    for block in _BLOCK.finditer(text):
        kind, body = block.groups()
        if kind == "console":
            for command, printed in _commands(body):
                _look(command, printed, _run(command, project))
                yield command
            continue
        named = _FILE.search(text, 0, block.start())
        assert named, f"a block of {kind} without the name of its file:\n{body}"
        file = project.folder / named[1]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(body)


def _commands(body: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
        command, *printed = part.splitlines()
        yield command, printed


def _run(command: str, project: OwnProject) -> str:
    if command == INSTALLED:
        return ""
    words = shlex.split(command)
    if words[0] == "psql":
        return _psql(words[2:], project)
    failing = words[0] == "backfills" and "check" in words
    return project.run(*words, expect=None if failing else 0)


def _psql(words: list[str], project: OwnProject) -> str:
    statement = words[1] if words[0] == "-c" else (project.folder / words[1]).read_text()
    with psycopg.connect(project.database_url, autocommit=True) as conn:
        cursor = conn.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
    return "\n".join("\t".join(str(value) for value in row) for row in rows)


def _look(command: str, wanted: list[str], printed: str) -> None:
    """Each line of the page in what was printed, in order; `…` stands for anything."""
    pattern = ".*".join(
        ".*".join(re.escape(" ".join(part.split())) for part in line.split("…")) for line in wanted
    )
    found = re.search(pattern.replace(r"\ ", " "), " ".join(printed.split()), re.S)
    assert found, f"$ {command}\n{printed}\n--- and not\n" + "\n".join(wanted)
