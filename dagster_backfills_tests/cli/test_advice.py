"""Every command `backfills …` in messages, hints, comments and the documentation exists."""

import re
from pathlib import Path

import pytest
import typer

from dagster_backfills.cli.app import app

# Commands in code style or after a colon, and all mentions of a command group.
_WORDS = r"((?: --?[a-z][a-z-]*| [a-z][a-z-]*)+)"
_COMMAND = re.compile(rf"""(?:[`"'(:·$\]] ?|^ {{4,}}|^```sh\n|exec (?:code )?)backfills{_WORDS}""", re.M)
_ANYWHERE = re.compile(rf"\bbackfills(?= (?:training|kintell|queue|scoring) [a-z]){_WORDS}")
_COMPUTED = re.compile(r"\bbackfills \{")
_FOLDERS = ("dagster_backfills", "docs", "deploy", "sql")
_FILES = ("README.md", "CONTRIBUTING.md", "Makefile", "Dockerfile", ".env.example", "dagster.yaml")


def texts(root: Path) -> list[Path]:
    found = [path for folder in _FOLDERS for path in (root / folder).rglob("*")]
    found = [path for path in found if path.suffix in {".py", ".md", ".sql", ".yaml", ".sh", ".template"}]
    found = [path for path in found if path.name != "generate.py"]  # composes names at run time
    return [*found, *(root / name for name in _FILES)]


def problem(words: list[str]) -> str | None:
    """The command line's error message for a command, or None if the command exists."""
    command = typer.main.get_command(app)
    with command.make_context("backfills", ["--debug"], resilient_parsing=True) as context:
        group = command
        for word in words:
            if word.startswith("-") or not hasattr(group, "get_command"):
                break
            found = group.get_command(context, word)
            if found is None:
                return f"{word!r} is none of {', '.join(group.list_commands(context))}"
            context = found.make_context(word, [], parent=context, resilient_parsing=True)
            group = context.command
        options = {
            option for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        unknown = [word for word in words if word.startswith("-") and word not in options | {"--help"}]
        return f"{unknown[0]} is none of its options" if unknown else None


def test_every_advised_command_exists(project_root: Path):
    advised: dict[str, str] = {}
    for path in texts(project_root):
        text, name = path.read_text(), path.relative_to(project_root)
        assert not _COMPUTED.search(text), f"{name} names a command that can't be looked up"
        for found in (*_COMMAND.finditer(text), *_ANYWHERE.finditer(text)):
            advised.setdefault(found[1], f"{name}: {found[0].strip()}")
    assert len(advised) > 60
    wrong = {where: problem(command.split()) for command, where in advised.items()}
    assert {where: what for where, what in wrong.items() if what} == {}


@pytest.mark.parametrize("command", ["kintell run", "no-such", "queue retry --no-such"])
def test_an_advised_command_that_does_not_exist_is_detected(command: str):
    assert problem(command.split())
