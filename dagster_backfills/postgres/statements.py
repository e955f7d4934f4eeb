"""Named statements from `.sql` files, as psycopg runs them. Not here: what they say, and who runs them.

A file is blocks of `-- name: some_name` and a statement, and stands as it is in psql (`\\set bind …`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from dagster_backfills.errors import UserError

_NAME = re.compile(r"^--\s*name:\s*(\w+)([$^!]?)[ \t]*$", re.M)
_BEHIND = re.compile(r"(\s*^--[^\n]*)+\s*\Z", re.M)  # comments behind a statement are the next one's
# What a bind or a percent sign means nothing in, what looks like a bind and is none, and the two themselves.
_TOKEN = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"""
    r"""|::|:=|(?<![\w\])]):(?P<bind>[A-Za-z_]\w*)|%""",
    re.S,
)
# What a statement is refused with by whoever plans it: its names, its grammar, a constant that is no date.
NOT_VALID = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError)


@dataclass(frozen=True)
class Statement:
    """One statement of a file. `sql` has psycopg's binds (`%(name)s`); `place` is its file and its name's line there.

    returns: what a call gives, `$` one value, `^` one row, `!` how many rows it touched, nothing all rows.
    """

    name: str
    sql: str
    binds: frozenset[str]
    place: str
    returns: str = ""

    @property
    def source(self) -> tuple[Path, int]:
        """The file, and the line of its name there."""
        file, _, line = self.place.rpartition(", line ")
        return Path(file), int(line)

    def check(self, conn: psycopg.Connection[Any], **binds: Any) -> None:
        """Raise UserError, with its place, where the database would not run it. It is planned, not run."""
        try:
            conn.execute(f"explain {self.sql}", binds, prepare=True)  # which takes one statement, not several
        except NOT_VALID as error:
            said = f"{self.place}: the statement is not valid: {error.diag.message_primary or error}."
            raise UserError(said) from error

    def __call__(self, conn: Any, **binds: Any) -> Any:
        cursor = conn.execute(self.sql, binds)
        if self.returns == "!":
            return cursor.rowcount
        if self.returns == "":
            return cursor.fetchall()
        row = cursor.fetchone()
        return row[0] if self.returns == "$" and row is not None else row

    def dicts(self, conn: psycopg.Connection[Any], **binds: Any) -> list[dict[str, Any]]:
        """All rows, by column."""
        with conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(self.sql, binds).fetchall()


class Statements:
    """The statements of one or more files: `statements["count_users"]` is a text, with `:bind` as `%(bind)s`, and
    `statements.count_users(conn, role="x")` a call. The files are read when the first is asked for."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths

    @cached_property
    def by_name(self) -> dict[str, Statement]:
        """Raises FileNotFoundError, and UserError for a name that stands twice."""
        found: dict[str, Statement] = {}
        for path in self._paths:
            for statement in _read(path):
                if statement.name in found:
                    raise UserError(
                        f"{statement.place}: there is a statement {statement.name!r} already.",
                        hint="Give each statement a name of its own.",
                    )
                found[statement.name] = statement
        return found

    def __getitem__(self, name: str) -> str:
        return self.by_name[name].sql

    def __getattr__(self, name: str) -> Statement:
        try:
            return self.by_name[name]
        except KeyError:
            raise AttributeError(f"there is no statement {name!r}") from None


@cache
def load_statements(*paths: Path) -> Statements:
    """The statements of these files, the same object for whoever asks."""
    return Statements(*paths)


def _read(path: Path) -> Iterator[Statement]:
    text = path.read_text(encoding="utf-8")
    names = list(_NAME.finditer(text))
    for name, following in zip(names, [*names[1:], None], strict=True):
        body = text[name.end() : following.start() if following else None]
        binds: set[str] = set()
        statement = _BEHIND.sub("", body).strip().removesuffix(";")
        sql = _TOKEN.sub(partial(_as_psycopg, binds), statement).rstrip()
        place = f"{path}, line {text.count(chr(10), 0, name.start()) + 1}"
        yield Statement(name[1], sql, frozenset(binds), place, name[2])


def _as_psycopg(binds: set[str], token: re.Match[str]) -> str:
    if token["bind"]:
        binds.add(token["bind"])
        return f"%({token['bind']})s"
    return token[0].replace("%", "%%")
