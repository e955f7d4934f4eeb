"""A page of the docs as a test: its files are written, its commands and statements run, what they print is looked for.

Blocks of a page: `console` has commands after `$ ` and what they print, `sh` commands alone, `sql` statements for psql.
Any other is a file, and SQL too where the name of a file stands before it.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg

_SNIPPET = re.compile(
    r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$"
    r"|`(?P<inline>(?:backfills|psql|select|update|delete)\s[^`]+)`",
    re.M | re.S,
)
_PROGRAMS = {"backfills", "dagster", "dg", "pip", "psql"}  # whatever begins otherwise is a statement
_FILE = re.compile(r"`([\w./]+\.\w+)`:\s*\Z")


class Place(Protocol):
    """Where a page is followed: its files lie in `folder`, its database is `database_url`."""

    @property
    def folder(self) -> Path: ...

    @property
    def database_url(self) -> str: ...

    def run(self, *command: str, expect: int | None = 0) -> str:
        """Run a program; returns what it says. Raises AssertionError where it ends otherwise than with `expect`."""
        ...


class Done(NamedTuple):
    """A command or a statement as the page has it, and what it printed: of a statement the rows."""

    what: str
    printed: str
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Reader:
    """How a page is followed.

    instead: what is done in place of a command; it returns what the command would print. fill: gives a snippet values
    for its placeholders, or None to leave it out. ends: commands that end with another exit code than 0. inline: what
    is code within a sentence is run too, once. exact: figures are those of the page, not any figures.
    """

    instead: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    fill: Callable[[str], str | None] = str
    ends: Mapping[str, int | None] = field(default_factory=dict)
    inline: bool = False
    exact: bool = True

    def follow(self, page: Path, place: Place) -> Iterator[Done]:
        """Do what the page says, in its order."""
        text, seen = page.read_text(), set[str]()
        for snippet in _SNIPPET.finditer(text):
            kind, body, inline = snippet["kind"], snippet["body"], " ".join((snippet["inline"] or "").split())
            if inline:
                if self.inline and inline not in seen:
                    yield from self._do(inline, place)
                seen.add(inline)
            elif kind == "console":
                for command, printed in _commands(body):
                    for done in self._do(command, place):
                        self._look(done, printed)
                        yield done
            elif kind == "sh":
                for command in re.sub(r"\\\n\s*", "", body).splitlines():
                    seen.add(re.sub(r"\s+#.*", "", command))
                    yield from self._do(re.sub(r"\s+#.*", "", command), place)
            elif named := _FILE.search(text, 0, snippet.start()):
                file = place.folder / named[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(body)
            else:
                assert kind == "sql", f"a block of {kind} without the name of its file:\n{body}"
                yield from self._do(body, place)

    def _do(self, what: str, place: Place) -> Iterator[Done]:
        if what in self.instead:
            yield Done(what, self.instead[what](), [])
        elif (filled := self.fill(what)) is None:
            return
        elif filled.split(maxsplit=1)[0] not in _PROGRAMS:
            yield _execute(what, filled, place)
        elif (words := shlex.split(filled))[0] == "psql":
            option, value = words[-2:]
            yield _execute(what, value if option == "-c" else (place.folder / value).read_text(), place)
        else:
            yield Done(what, place.run(*words, expect=self.ends.get(what, 0)), [])

    def _look(self, done: Done, wanted: list[str]) -> None:
        """Each line of the page among the lines that were printed, in order; `…` stands for anything."""
        lines = iter(done.printed.splitlines())
        for line in wanted:
            pattern = ".*".join(map(re.escape, self._plain(line).split("…")))
            assert any(re.fullmatch(pattern, self._plain(each)) for each in lines), (
                f"$ {done.what}\n{done.printed}\n--- has no line, in its place, like\n{line}"
            )

    def _plain(self, line: str) -> str:
        """Without the lengths of lines and gaps, which depend on what is in a table; all figures alike unless exact."""
        plain = re.sub("─+", "─", " ".join(line.split()))
        return plain if self.exact else re.sub(r"\d+(?:[.,]\d+)*", "0", plain)


def _commands(body: str) -> Iterator[tuple[str, list[str]]]:
    for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
        command, *printed = part.splitlines()
        yield command, printed


def _execute(what: str, statement: str, place: Place) -> Done:
    with psycopg.connect(place.database_url, autocommit=True) as conn:
        cursor, rows = conn.execute(statement), []  # type: ignore[call-overload]
        while True:
            rows += cursor.fetchall() if cursor.description else []
            if not cursor.nextset():
                break
    return Done(what, "\n".join("\t".join(str(value) for value in row) for row in rows), rows)
