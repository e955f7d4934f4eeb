"""Finding a backfill by name, and what `run`, `plan`, `undo` and the like need from it.

Not here: scoring's implementation (`cli.scoring.days`), and output.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
import typer

from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.scoring.days import Scoring
from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.loading import declared, declared_by_name, postgres_of
from dagster_backfills.components.planning import explain_unit, plan_backfill
from dagster_backfills.dagster.project import project_defs, project_module
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.domain_switches import disabled_domains
from dagster_backfills.engine.partition_status import PartitionStatus
from dagster_backfills.engine.selection import Which
from dagster_backfills.errors import UserError
from dagster_backfills.names import resolve_id
from dagster_backfills.postgres.migrations import require_migrations
from dagster_backfills.postgres.values import show_every_value

if TYPE_CHECKING:
    from dagster_backfills.engine.explain import Explanation
    from dagster_backfills.engine.plan import Report

Name = Annotated[str, typer.Argument(metavar="NAME", help="The backfill's name, as in `backfills list`.")]
Partitions = Annotated[
    list[str] | None,
    typer.Option(
        "--partition", "-p", metavar="KEY", help="Only this partition: its key, a prefix, or its name. Repeatable."
    ),
]  # fmt: skip
Whiches = Annotated[Which | None, typer.Option(help="Which partitions. Default: those that need a backfill.")]

# These have no partitions. They have commands of their own for some of the verbs.
ELSEWHERE = {
    "kintell": {
        "run": "backfills kintell start FILE",
        "plan": "backfills kintell validate FILE",
        "pause": "backfills kintell pause JOB",
        "resume": "backfills kintell resume JOB",
        "cancel": "backfills kintell cancel JOB",
        "undo": "backfills kintell rollback JOB",
        "explain": "backfills kintell status JOB",
        "help": "backfills kintell --help",
    },
    "queue": {
        "run": "backfills queue enqueue TYPE",
        "cancel": "backfills queue cancel ID",
        "explain": "backfills queue show ID",
        "help": "backfills queue --help",
    },
}


@dataclass(frozen=True)
class Declared:
    """A backfill declared in a defs.yaml."""

    backfill: Backfill

    @property
    def name(self) -> str:
        return self.backfill.name

    @property
    def assets(self) -> list[str]:
        return self.backfill.assets

    @property
    def job(self) -> str:
        return self.backfill.job

    @cached_property
    def postgres(self) -> PostgresResource:
        """The backfill's database. Raises UserError if migrations are pending."""
        postgres = postgres_of(self.backfill)
        require_migrations(postgres.libpq_url)
        return postgres

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        with self.postgres.connect() as conn:
            show_every_value(conn)
            yield conn

    def partition_statuses(
        self, conn: psycopg.Connection[Any], *, more: bool = True
    ) -> list[PartitionStatus]:
        return self.backfill.partition_statuses(conn, more=more)

    def choose(self, conn: psycopg.Connection[Any], which: Which, partitions: Sequence[str]) -> list[str]:
        """The keys of the given partitions, or of `which`. Raises UserError if a partition is unknown."""
        if not partitions:
            self.backfill.mark_changes(conn)
            conn.commit()
        keys = list(self.backfill.selection().choose(conn, Which.all if partitions else which))
        if set(partitions) <= set(keys):
            return list(dict.fromkeys(partitions)) or keys
        names = {each.partition: each.name for each in self.partition_statuses(conn, more=False)}
        return list(dict.fromkeys(resolve_id(each, names, "partition") for each in partitions))

    def launch(self, which: Which, keys: Sequence[str]) -> list[tuple[str, int]]:
        """Run the backfill's job. Returns the run's ID and the exit code."""
        config = {"which": which.value, "partitions": list(keys)}
        module = project_module(Path.cwd()) or ""
        return [launch(self.job, config, module=module, url=self.postgres.libpq_url)]

    def plan(self, which: Which, keys: Sequence[str], log: Any) -> "Report":
        return plan_backfill(self.backfill, self.postgres.connect, which, keys, log=log)

    def explain(self, conn: psycopg.Connection[Any], unit: str) -> "Explanation":
        return explain_unit(self.backfill, conn, unit)


Named = Declared | Scoring


def names(start: Path) -> list[str]:
    """The names of all backfills in the project."""
    off = ("scoring", *ELSEWHERE) if project_module(start) else disabled_domains()
    return [
        *sorted(declared_by_name(project_defs(start))),
        *(name for name in ("scoring", *ELSEWHERE) if name not in off),
    ]


def the_name(name: str) -> str:
    """Resolve a name or a unique prefix to a backfill's name. Raises UserError if there is none."""
    return resolve_id(name, dict.fromkeys(names(Path.cwd())), "backfill")


def named(name: str, verb: str) -> Named:
    """Find a backfill by name or prefix. Raises UserError if there is none, or if it does not support the verb."""
    full_name = the_name(name)
    folders = declared_by_name(project_defs(Path.cwd()))
    if full_name in folders:  # takes precedence: a project may declare its own `queue`
        return Declared(declared(folders[full_name]))
    if full_name in ELSEWHERE:
        commands = ELSEWHERE[full_name]
        raise UserError(
            f"{verb!r} is not available for {full_name}.",
            f"Use its own command: {commands.get(verb, commands['help'])}",
        )
    return Scoring()


def is_elsewhere(name: str) -> bool:
    """Whether this is the `kintell` or `queue` domain, which have no partitions."""
    return name in ELSEWHERE and name not in declared_by_name(project_defs(Path.cwd()))
