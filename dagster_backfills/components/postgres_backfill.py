"""The component `PostgresBackfill`: builds Dagster definitions from a declaration."""

from pathlib import Path

import dagster as dg
from pydantic import BaseModel, ValidationError, field_validator

from dagster_backfills.components.assets import build_assets, build_views
from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.controlling import build_control_job
from dagster_backfills.components.partitions import definition_of
from dagster_backfills.components.planning import build_plan_job
from dagster_backfills.components.refresh import build_job, build_schedules, build_sensors
from dagster_backfills.components.undoing import build_undo_job
from dagster_backfills.dagster.mistaken import Mistaken, claim, in_place_of
from dagster_backfills.dagster.own_resources import database_resources
from dagster_backfills.engine.declared.declaration import Declaration, Partitions
from dagster_backfills.engine.declared.draft import Draft, DraftParams
from dagster_backfills.engine.declared.validation import validate
from dagster_backfills.engine.declared.yaml_mistakes import Places, documents, lenient, mistake
from dagster_backfills.errors import UserError

TYPE = "dagster_backfills.PostgresBackfill"


class DraftScaffolder(dg.Scaffolder[DraftParams]):
    """Writes a draft declaration for `dg scaffold defs` from its parameters, without connecting to a database."""

    @classmethod
    def get_scaffold_params(cls) -> type[DraftParams]:
        return DraftParams

    def scaffold(self, request: dg.ScaffoldRequest[DraftParams]) -> None:
        Draft(request.target_path.name, request.params).write(request.target_path)


@dg.scaffold_with(DraftScaffolder)
class PostgresBackfill(dg.Component, Declaration, dg.Resolvable):
    """Fill Postgres tables, partition by partition, from the statements in the `queries.sql` beside the `defs.yaml`.

    Provides the assets with their partitions and lineage, a job that writes due partitions, a job that plans, sensors
    that sync partitions and refresh stale ones, checks and a schedule. The engine writes in batches and records
    every batch and every failure.
    """

    @field_validator("partitions")
    @classmethod
    def _are_partitions_of_dagster(cls, value: Partitions | None) -> Partitions | None:
        try:
            if value is not None:
                definition_of(value, "any")
        except Exception as error:  # Dagster validates dates, time zones and keys
            raise ValueError(" ".join(str(error).split())) from error
        return value

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        model = lenient(cls.model())
        for (
            name,
            field,
        ) in model.model_fields.items():  # Dagster drops the descriptions of fields with a default
            field.description = cls.model_fields[name].description
        model.model_rebuild(force=True)
        return model

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
            unique = [f"the name {backfill.name!r}", *(f"table {table.qualified}" for table in self.tables)]
            if isinstance(backfill.partitions_def, dg.DynamicPartitionsDefinition):
                unique.append(f"the set of partitions {backfill.partitions_def.name!r}")
            claim(context.component_tree, f"{folder / 'defs.yaml'}", unique)
            return accepted_definitions(backfill)
        except UserError as error:
            return in_place_of(folder, error)

    def at(self, folder: Path) -> Backfill:
        """The backfill of this declaration, with the statements in its folder. Raises UserError for a mistake."""
        name, group = self.name or folder.name, self.group or folder.name
        return Backfill(self, name, group, validate(self, folder), folder)


def accepted_definitions(backfill: Backfill) -> dg.Definitions:
    """The backfill's definitions. Raises UserError if Dagster rejects, for example, a name or a cron expression."""
    try:
        return definitions_of(backfill)
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{backfill.folder / 'defs.yaml'}: Dagster rejects it: {reason}") from error


def definitions_of(backfill: Backfill) -> dg.Definitions:
    """The backfill's assets, checks, jobs, sensors and schedule, and its resources unless the project has its own."""
    job = build_job(backfill)
    # For chosen partitions. Dagster shows the sensors as the assets' automation because of this job's selection.
    asset_job = dg.define_asset_job(
        f"materialize_{backfill.name}",
        selection=dg.AssetSelection.assets(*(asset.split("/") for asset in backfill.assets)),
        description=f"Write chosen partitions of {backfill.name} and run its checks.",
        tags={"backfills/domain": backfill.group},
    )
    return dg.Definitions(
        assets=[build_assets(backfill), *build_views(backfill)],
        asset_checks=[backfill.rules.definition()],
        jobs=[
            job,
            asset_job,
            build_plan_job(backfill),
            build_undo_job(backfill),
            build_control_job(backfill),
        ],
        sensors=build_sensors(backfill, job, asset_job),
        schedules=build_schedules(backfill, job),
        resources={} if backfill.declared.resources else database_resources(backfill.declared.database),
    )


def read(file: Path) -> PostgresBackfill:
    """The declaration in a `defs.yaml`. Raises UserError, with file and line, if it is invalid."""
    for document in documents(file):
        if document.type == TYPE:
            try:
                return PostgresBackfill.model_validate(document.attributes or {})
            except ValidationError as error:
                raise mistake(error, PostgresBackfill, Places(file)) from error
    raise UserError(f"{file} declares no {TYPE}.")
