"""Loading named statements from `.sql` files, with `:bind` variables converted to psycopg's.

In a file, a `-- name: some_name` line precedes each statement. The statements also run in psql (`\\set bind …`).
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
_TRAILING_COMMENT = re.compile(r"(\s*^--[^\n]*)+\s*\Z", re.M)  # belongs to the next statement
# Quoted text and comments, operators that look like binds, binds, and percent signs.
_TOKEN = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"""
    r"""|::|:=|(?<![\w\])]):(?P<bind>[A-Za-z_]\w*)|%""",
    re.S,
)
# Errors when an invalid statement is planned: unknown names, syntax errors, invalid constants.
NOT_VALID = (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError)


@dataclass(frozen=True)
class Statement:
    """One statement of a file. `sql` has psycopg's binds (`%(name)s`); `place` is the file and line of its name.

    returns: the result of a call. `$`: one value; `^`: one row; `!`: the number of affected rows; empty: all rows.
    """

    name: str
    sql: str
    binds: frozenset[str]
    place: str
    returns: str = ""

    @property
    def source(self) -> tuple[Path, int]:
        """The file and line of its name."""
        file, _, line = self.place.rpartition(", line ")
        return Path(file), int(line)

    def check(self, conn: psycopg.Connection[Any], **binds: Any) -> None:
        """Raise UserError, with file and line, if the statement is invalid. Plans it without executing it."""
        try:
            conn.execute(f"explain {self.sql}", binds, prepare=True)  # prepare rejects several statements
        except NOT_VALID as error:
            message = f"{self.place}: the statement is not valid: {error.diag.message_primary or error}."
            raise UserError(message) from error

    def __call__(self, conn: Any, **binds: Any) -> Any:
        cursor = conn.execute(self.sql, binds)
        if self.returns == "!":
            return cursor.rowcount
        if self.returns == "":
            return cursor.fetchall()
        row = cursor.fetchone()
        return row[0] if self.returns == "$" and row is not None else row

    def dicts(self, conn: psycopg.Connection[Any], **binds: Any) -> list[dict[str, Any]]:
        """All rows as dictionaries."""
        with conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(self.sql, binds).fetchall()


class Statements:
    """The statements of one or more files, which are read at first use.

    `statements["count_users"]` is the SQL text, and `statements.count_users(conn, role="x")` executes it.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths = paths

    @cached_property
    def by_name(self) -> dict[str, Statement]:
        """All statements by name. Raises FileNotFoundError, and UserError for a duplicate name."""
        statements: dict[str, Statement] = {}
        for path in self._paths:
            for statement in _read(path):
                if statement.name in statements:
                    raise UserError(
                        f"{statement.place}: there is already a statement {statement.name!r}.",
                        hint="Give each statement a different name.",
                    )
                statements[statement.name] = statement
        return statements

    def __getitem__(self, name: str) -> str:
        return self.by_name[name].sql

    def __getattr__(self, name: str) -> Statement:
        try:
            return self.by_name[name]
        except KeyError:
            raise AttributeError(f"there is no statement {name!r}") from None


@cache
def load_statements(*paths: Path) -> Statements:
    """The statements of these files. The same files give the same object."""
    return Statements(*paths)


def _read(path: Path) -> Iterator[Statement]:
    text = path.read_text(encoding="utf-8")
    names = list(_NAME.finditer(text))
    ends = [*(following.start() for following in names[1:]), len(text)]
    for name, end in zip(names, ends, strict=False):
        body = text[name.end() : end]
        binds: set[str] = set()
        statement = _TRAILING_COMMENT.sub("", body).strip().removesuffix(";")
        sql = _TOKEN.sub(partial(_as_psycopg, binds), statement).rstrip()
        place = f"{path}, line {text.count(chr(10), 0, name.start()) + 1}"
        yield Statement(name[1], sql, frozenset(binds), place, name[2])


def _as_psycopg(binds: set[str], token: re.Match[str]) -> str:
    if token["bind"]:
        binds.add(token["bind"])
        return f"%({token['bind']})s"
    return token[0].replace("%", "%%")
