"""The backfills by name, and what the verbs ask of each: a declared one here, scoring beside its own words.

Not here: what a verb shows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg
import psycopg
import typer

from dagster_backfills.cli.launch import launch
from dagster_backfills.cli.scoring.days import Scoring
from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.loading import declared, declared_by_name, postgres_of
from dagster_backfills.components.planning import explain_unit, plan_backfill
from dagster_backfills.dagster.project import project_defs, project_module
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.domain_switches import switched_off
from dagster_backfills.engine.selection import Which
from dagster_backfills.engine.standing import Standing
from dagster_backfills.errors import UserError
from dagster_backfills.instance.launching import open_instance
from dagster_backfills.names import the_one
from dagster_backfills.postgres.migrations import require_migrations
from dagster_backfills.postgres.values import show_every_value

if TYPE_CHECKING:
    from dagster_backfills.engine.explain import Explanation
    from dagster_backfills.engine.plan import Report

Name = Annotated[str, typer.Argument(metavar="NAME", help="The backfill, as `backfills list` has it.")]
Partitions = Annotated[
    list[str] | None,
    typer.Option(
        "--partition", "-p", metavar="KEY", help="Only this one: its key, how it begins, or its name. May be repeated."
    ),
]  # fmt: skip
Whiches = Annotated[Which | None, typer.Option(help="Which partitions; by default those that need it.")]

# What is no backfill of partitions has words of its own for some of the verbs.
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
    """A declared backfill."""

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
        """Its database, migrated."""
        postgres = postgres_of(self.backfill)
        require_migrations(postgres.libpq_url)
        return postgres

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection[Any]]:
        with self.postgres.connect() as conn:
            show_every_value(conn)
            yield conn

    def standings(self, conn: psycopg.Connection[Any], *, more: bool = True) -> list[Standing]:
        with self._instance() as instance:
            return self.backfill.standings(conn, instance, more=more)

    def choose(self, conn: psycopg.Connection[Any], which: Which, wanted: Sequence[str]) -> list[str]:
        """The keys of the partitions that are meant. Raises UserError for one that there is not."""
        if not wanted:
            self.backfill.look(conn)
            conn.commit()
        with self._instance() as instance:
            found = list(self.backfill.selection(instance).choose(conn, Which.all if wanted else which))
        if set(wanted) <= set(found):
            return list(dict.fromkeys(wanted)) or found
        names = {each.partition: each.name for each in self.standings(conn, more=False)}
        return list(dict.fromkeys(the_one(each, names, "partition") for each in wanted))

    def launch(self, which: Which, keys: Sequence[str]) -> list[tuple[str, int]]:
        """Run its job; the run's id and the exit code."""
        config = {"which": which.value, "partitions": list(keys)}
        return [launch(self.job, config, module=project_module(Path.cwd()) or "")]

    def plan(self, which: Which, keys: Sequence[str], log: Any) -> "Report":
        with self._instance() as instance:
            return plan_backfill(
                self.backfill, self.postgres.connect, which, keys, instance=instance, log=log
            )

    def explain(self, conn: psycopg.Connection[Any], unit: str) -> "Explanation":
        return explain_unit(self.backfill, conn, unit)

    @contextmanager
    def _instance(self) -> Iterator[dg.DagsterInstance | None]:
        """Dagster's instance, where only that knows what is missing."""
        if self.backfill.declared.missing or self.backfill.declared.due:
            yield None
            return
        with open_instance() as instance:
            yield instance


Named = Declared | Scoring


def names(start: Path) -> list[str]:
    """Every backfill of the project."""
    off = ("scoring", *ELSEWHERE) if project_module(start) else switched_off()
    return [
        *sorted(declared_by_name(project_defs(start))),
        *(name for name in ("scoring", *ELSEWHERE) if name not in off),
    ]


def the_name(name: str) -> str:
    """The name of the backfill that is meant. Raises UserError where there is none."""
    return the_one(name, dict.fromkeys(names(Path.cwd())), "backfill")


def named(name: str, verb: str) -> Named:
    """The backfill that is meant. Raises UserError where there is none, or the verb is nothing for it."""
    found = the_name(name)
    folders = declared_by_name(project_defs(Path.cwd()))
    if found in folders:  # before ours: a project may have a `queue` of its own
        return Declared(declared(folders[found]))
    if found in ELSEWHERE:
        own = ELSEWHERE[found]
        raise UserError(
            f"There is no {verb!r} for {found} as a whole.", f"Its own: {own.get(verb, own['help'])}"
        )
    return Scoring()


def is_elsewhere(found: str) -> bool:
    """Whether it is one of ours that is no backfill of partitions."""
    return found in ELSEWHERE and found not in declared_by_name(project_defs(Path.cwd()))


def which_of(which: Which | None, partitions: Sequence[str] | None) -> Which:
    """What `--which` and `--partition` say together."""
    if partitions and which not in (None, Which.named):
        raise UserError("--partition and --which exclude each other.", "Give one of them.")
    if which is Which.named and not partitions:
        raise UserError("--which named names no partition.", "Name them: --partition KEY")
    return Which.named if partitions else which or Which.needed
