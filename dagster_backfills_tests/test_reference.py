"""The generated pages in `docs/reference/` are up to date and complete."""

import psycopg
import pytest

from docs.generate import REFERENCE, pages


@pytest.fixture
def made(conn: psycopg.Connection) -> dict[str, str]:
    return pages(conn)


def test_the_reference_is_up_to_date(made: dict[str, str]) -> None:
    committed = {path.name: path.read_text() for path in REFERENCE.glob("*.md")}
    assert set(committed) == set(made)
    for name, text in made.items():
        assert committed[name] == text, f"docs/reference/{name} is out of date: make reference"


def test_every_table_view_command_and_definition_has_a_description(made: dict[str, str]) -> None:
    tables = made["tables.md"].split("\n### ")[1:]
    assert [text.splitlines()[0] for text in tables if text.splitlines()[2].startswith("|")] == []
    for name in ("command-line.md", "definitions.md"):
        # Rows with an empty cell for the description.
        rows = [line.split(" | ") for line in made[name].splitlines() if line.startswith("| `")]
        place = 1 if name == "command-line.md" else -1
        unexplained = [row[0] for row in rows if not row[place].strip(" |")]
        assert unexplained == [], name
