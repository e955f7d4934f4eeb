"""Executes a page of the documentation: writes its files, runs its commands and statements, and compares their output.

Blocks of a page: `console` holds commands after `$ ` and the lines they print, `sh` only commands, `sql` statements.
Any other block is a file, whose name must precede it. An `sql` block preceded by a file name is a file too.
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
_PROGRAMS = {"backfills", "dagster", "dg", "pip", "psql"}  # a snippet that begins otherwise is a statement
_FILE = re.compile(r"`([\w./]+\.\w+)`:\s*\Z")


class Place(Protocol):
    """Where a page is executed: the folder for its files, and its database."""

    @property
    def folder(self) -> Path: ...

    @property
    def database_url(self) -> str: ...

    def run(self, *command: str, expect: int | None = 0) -> str:
        """Run a program. Returns its output. Raises AssertionError if its exit code is not `expect`."""
        ...


class Done(NamedTuple):
    """A command or statement as on the page, with its output, and the rows of a statement."""

    what: str
    printed: str
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Reader:
    """Executes pages.

    instead: functions to call instead of commands; they return the output. fill: replaces a snippet's placeholders, or
    returns None to skip it. ends: commands with an exit code other than 0 (None: any). inline: also run each inline
    command once. exact: numbers in the output must equal those on the page.
    """

    instead: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    fill: Callable[[str], str | None] = str
    ends: Mapping[str, int | None] = field(default_factory=dict)
    inline: bool = False
    exact: bool = True

    def follow(self, page: Path, place: Place) -> Iterator[Done]:
        """Execute the page from top to bottom."""
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
                        self._compare(done, printed)
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

    def _compare(self, done: Done, expected: list[str]) -> None:
        """Assert that the page's lines are among the printed lines, in order; `…` matches anything."""
        lines = iter(done.printed.splitlines())
        for line in expected:
            pattern = ".*".join(map(re.escape, self._plain(line).split("…")))
            assert any(re.fullmatch(pattern, self._plain(each)) for each in lines), (
                f"$ {done.what}\n{done.printed}\n--- does not contain, at this point, a line like\n{line}"
            )

    def _plain(self, line: str) -> str:
        """The line with normalized rules and gaps, whose lengths depend on the data; numbers replaced unless exact."""
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
