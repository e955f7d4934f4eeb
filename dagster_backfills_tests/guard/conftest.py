"""A database with the roles of `sql/roles.sql`, and the tests' own logins in each of them."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from dagster_backfills.cli.app import app
from dagster_backfills_tests.cli.conftest import user_of
from dagster_backfills_tests.conftest import new_database
from dagster_backfills_tests.programs import SCRIPT, run

ROLES = ("owner", "writer", "reader", "enqueuer")
PASSWORD = "pass-of-the-login"
# Tables of applications and operators, which runs read.
SOURCES = {
    "training": ["organizations", "members", "training_videos"],
    "progress": ["schools", "cohorts", "users", "classes", "modules", "questions", "user_progress"],
    "scoring": ["gyms", "members", "visits", "coaches", "member_coaches"],
    "jobs": ["job_types", "queue_settings"],
}


@dataclass(frozen=True)
class Guarded:
    """`admin`: the administrator's URL. `logins`: the name of a login for each role."""

    admin: str
    logins: dict[str, str]
    home: Path

    def url(self, role: str) -> str:
        return user_of(self.admin, self.logins[role], PASSWORD)

    def connect(self, role: str = "") -> psycopg.Connection:
        return psycopg.connect(self.url(role) if role else self.admin, autocommit=True)

    def environment(self, role: str) -> dict[str, str]:
        """Environment variables of a process with this role. The embedded server's socket is found through the URL."""
        return os.environ | {"DATABASE_URL": self.url(role), "BACKFILLS_HOME": str(self.home)}

    def backfills(self, role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run([SCRIPT, *arguments], env=self.environment(role))


@contextmanager
def _group_roles(admin: str) -> Iterator[None]:
    """Roles belong to the whole server. Removes those that did not exist before."""
    names = [f"backfills_{role}" for role in ROLES]
    find = "select rolname from pg_roles where rolname = any(%s)"
    with psycopg.connect(admin, autocommit=True) as conn:
        before = {row[0] for row in conn.execute(find, [names])}
        yield
        for name in set(names) - before:
            # Tests of another session may still use them on the same server.
            with suppress(psycopg.errors.DependentObjectsStillExist, psycopg.errors.UndefinedObject):
                conn.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))


@contextmanager
def _login(admin: str, group: str) -> Iterator[str]:
    name = f"{group}_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(
            sql.SQL("create role {} login password {} in role {}").format(
                sql.Identifier(name), sql.Literal(PASSWORD), sql.Identifier(f"backfills_{group}")
            )
        )
        if group == "owner":
            conn.execute(sql.SQL("alter role {} set role = backfills_owner").format(sql.Identifier(name)))
        yield name
        conn.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def guard(
    server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[bool], Guarded]]:
    """A function that creates such a database, migrated or empty, with `backfills migrate --roles`."""
    with ExitStack() as stack:
        stack.enter_context(_group_roles(server_url))

        def make(migrated: bool = True) -> Guarded:
            url = stack.enter_context(new_database(server_url, template if migrated else "template1"))
            home = tmp_path_factory.mktemp("home")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("DATABASE_URL", url)
                patch.setenv("BACKFILLS_HOME", str(home))
                done = CliRunner().invoke(app, ["migrate", "--roles"])
            assert done.exit_code == 0, done.output
            logins = {role: stack.enter_context(_login(url, role)) for role in ROLES}
            assert conninfo_to_dict(url)["user"] not in logins.values()
            return Guarded(url, logins, home)

        yield make


@pytest.fixture(scope="module")
def guarded(guard: Callable[[bool], Guarded]) -> Guarded:
    """A guarded database that a module's tests share."""
    return guard(True)
