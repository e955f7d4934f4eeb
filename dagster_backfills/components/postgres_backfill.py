"""The component: a declaration in, Dagster definitions out. Wiring only; what it wires stands in the engine's rooms."""

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from dagster_backfills.components.building import Backfill
from dagster_backfills.components.declaration import Check, Partitions, Resources, Schedule, TableDeclaration
from dagster_backfills.components.scaffolding import DraftScaffolder
from dagster_backfills.components.validation import validate
from dagster_backfills.dagster.mistaken import Mistaken, in_place_of, take
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.table_names import split_table
from dagster_backfills.yaml_mistakes import Places, lenient, mistake

TYPE = "dagster_backfills.PostgresBackfill"


@dg.scaffold_with(DraftScaffolder)
class PostgresBackfill(dg.Component, dg.Model, dg.Resolvable):
    """Fill tables in Postgres, partition by partition, from the statements of the `queries.sql` beside it.

    What follows from it: the assets with their partitions and lineage, a job that finds scattered work by itself,
    sensors that sync partitions and refresh what is stale, checks, a schedule, and the engine's batches, ledger and
    account under all of them.
    """

    tables: list[TableDeclaration] = Field(
        description="The tables, in the order in which each batch writes them."
    )
    name: str = Field(default="", description="By default the folder's.")
    group: str = Field(default="", description="Of the assets; by default the folder's name.")
    partitions: Partitions | None = Field(
        default=None, description="How the tables are cut; whole without it."
    )
    sources: list[str] = Field(
        default=[],
        description="The tables that are read, beside those of `stale_when`: upstream in the lineage.",
    )
    stale_when: dict[str, str] = Field(
        default={},
        description="By source table: its column that holds the partition's key, or the statement that gives the keys "
        "of `changed_rows`.",
    )
    stale_by: Literal["triggers", "look"] = Field(
        default="triggers",
        description="How changes are noticed. triggers: as they are made, once `backfills triggers` has been applied; "
        "look: by the refresh sensor, which reads the sources for rows written since its last look.",
    )
    due: str | None = Field(
        default=None,
        description="The statement that gives keys which have to be written although no trigger has marked them.",
    )
    missing: str | None = Field(
        default=None,
        description="The statement that gives keys which lack rows, for a run over what is missing; by default that of "
        "`due`, else what Dagster has no materialization of.",
    )
    status: str | None = Field(
        default=None,
        description="The statement that says more of each partition, for `backfills status`: `partition`, and whatever "
        "is worth seeing.",
    )
    report: str | None = Field(
        default=None,
        description="package.module:function of a connection and a run's id that gives metadata of what the run did: "
        "an observation of the last table.",
    )
    checks: dict[str, str | Check] = Field(default={}, description="By name: the statement, or more of it.")
    schedule: str | Schedule | None = Field(
        default=None, description="A cron expression (UTC), or more of it."
    )
    batch_seconds: float = Field(
        default=0.0, ge=0, description="What a batch should take, where longer pays."
    )
    fresh_within: int = Field(
        default=600, gt=0, description="Seconds after which what is stale fails a check."
    )
    fresh_hours: float | None = Field(
        default=None,
        gt=0,
        description="Hours after which tables that nothing has written count as overdue in the catalog.",
    )
    views: list[str] = Field(
        default=[], description="Views of the tables that are read elsewhere: downstream in the lineage."
    )
    owners: list[str] = Field(
        default=[], description="team:… or e-mail addresses, of tables that name none of their own."
    )
    tags: dict[str, str] = Field(default={}, description="For the catalog, of every table.")
    database: str | None = Field(
        default=None, description="The environment variable of another database's URL than DATABASE_URL."
    )
    resources: Resources | None = Field(default=None, description="The project's own, in place of ours.")

    @field_validator("sources", "stale_when")
    @classmethod
    def _name_tables(cls, value: Any) -> Any:
        for name in value:
            split_table(name)
        return value

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return lenient(cls.model())

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> dg.Component:  # type: ignore[override]
        try:
            if attributes is not None and attributes.model_fields_set:
                return super().load(attributes, context)
        except Exception as error:
            if not isinstance(error.__cause__ or error, ValidationError):
                raise
        try:
            read(Path(context.path) / "defs.yaml")
        except UserError as error:
            return Mistaken(error)
        return super().load(attributes, context)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = Path(context.path)
        try:
            backfill = self.at(folder)
            take(context.component_tree, f"{folder / 'defs.yaml'}", backfill.own_things())
            return backfill.definitions()
        except UserError as error:
            return in_place_of(self.name or folder.name, error)
        except (
            Exception
        ) as error:  # what Dagster refuses, a name or a cron expression say, takes no other down either
            said = f"{folder / 'defs.yaml'}: Dagster refuses it: {' '.join(str(error).split())}"
            return in_place_of(self.name or folder.name, UserError(said))

    def at(self, folder: Path) -> Backfill:
        """The backfill of this declaration, with the statements of its folder. Raises UserError for a mistake."""
        name, group = self.name or folder.name, self.group or folder.name
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(
                f"{folder / 'defs.yaml'}: {name!r} can't be a backfill's name.",
                hint="Give `name`: letters, digits and underscores.",
            )
        return Backfill(self, name, group, validate(self, folder), folder)

    @property
    def freshness(self) -> dg.FreshnessPolicy | None:
        """The promise that `fresh_hours` is."""
        hours = self.fresh_hours
        return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=hours)) if hours else None

    @property
    def check_list(self) -> Sequence[tuple[str, Check]]:
        return [
            (name, Check(query=check) if isinstance(check, str) else check)
            for name, check in self.checks.items()
        ]


def read(file: Path) -> PostgresBackfill:
    """The declaration in a `defs.yaml`. Raises UserError, with file and line, for one that is none."""
    try:
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise UserError(f"{file} is no YAML: {' '.join(str(error).split())}") from error
    for document in documents:
        if isinstance(document, dict) and document.get("type") == TYPE:
            try:
                return PostgresBackfill.model_validate(document.get("attributes") or {})
            except ValidationError as error:
                raise mistake(error, PostgresBackfill, Places(file)) from error
    raise UserError(f"{file} declares no {TYPE}.")
