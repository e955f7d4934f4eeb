"""The component: a declaration in, Dagster definitions out."""

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
from dagster_backfills.dagster.mistaken import Mistaken, in_place_of, take
from dagster_backfills.dagster.own_resources import database_resources
from dagster_backfills.engine.declared.declaration import Declaration, Partitions
from dagster_backfills.engine.declared.draft import Draft, DraftParams
from dagster_backfills.engine.declared.validation import validate
from dagster_backfills.errors import UserError
from dagster_backfills.yaml_mistakes import Places, documents, lenient, mistake

TYPE = "dagster_backfills.PostgresBackfill"


class DraftScaffolder(dg.Scaffolder[DraftParams]):
    """Writes a draft for `dg scaffold defs`, from its parameters alone: it asks no database."""

    @classmethod
    def get_scaffold_params(cls) -> type[DraftParams]:
        return DraftParams

    def scaffold(self, request: dg.ScaffoldRequest[DraftParams]) -> None:
        Draft(request.target_path.name, request.params).write(request.target_path)


@dg.scaffold_with(DraftScaffolder)
class PostgresBackfill(dg.Component, Declaration, dg.Resolvable):
    """Fill tables in Postgres, partition by partition, from the statements of the `queries.sql` beside it.

    What follows from it: the assets with their partitions and lineage, a job that finds scattered work by itself,
    sensors that sync partitions and refresh what is stale, checks, a schedule, and the engine's batches, ledger and
    account under all of them.
    """

    @field_validator("partitions")
    @classmethod
    def _are_partitions_of_dagster(cls, value: Partitions | None) -> Partitions | None:
        try:
            if value is not None:
                definition_of(value, "any")
        except Exception as error:  # dates, zones and keys: by Dagster's rules
            raise ValueError(" ".join(str(error).split())) from error
        return value

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        model = lenient(cls.model())
        for name, field in model.model_fields.items():  # of those with a default, Dagster drops the help
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
            # What no other backfill of the project may have.
            own = [f"the name {backfill.name!r}", *(f"table {table.qualified}" for table in self.tables)]
            if isinstance(backfill.partitions_def, dg.DynamicPartitionsDefinition):
                own.append(f"the set of partitions {backfill.partitions_def.name!r}")
            take(context.component_tree, f"{folder / 'defs.yaml'}", own)
            return definitions_of(backfill)
        except UserError as error:
            return in_place_of(folder, error)
        except Exception as error:  # what Dagster refuses, a name or a cron expression say
            said = f"{folder / 'defs.yaml'}: Dagster refuses it: {' '.join(str(error).split())}"
            return in_place_of(folder, UserError(said))

    def at(self, folder: Path) -> Backfill:
        """The backfill of this declaration, with the statements of its folder. Raises UserError for a mistake."""
        name, group = self.name or folder.name, self.group or folder.name
        return Backfill(self, name, group, validate(self, folder), folder)


def definitions_of(backfill: Backfill) -> dg.Definitions:
    """Its assets, checks, jobs, sensors and schedule, and its resources unless the project has them."""
    job = build_job(backfill)
    # For partitions that somebody chooses. By it Dagster knows which assets the sensors keep up to date.
    asset_job = dg.define_asset_job(
        f"materialize_{backfill.name}",
        selection=dg.AssetSelection.assets(*(asset.split("/") for asset in backfill.assets)),
        description=f"Write chosen partitions of {backfill.name}, with its checks.",
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
    """The declaration in a `defs.yaml`. Raises UserError, with file and line, for one that is none."""
    for document in documents(file):
        if document.type == TYPE:
            try:
                return PostgresBackfill.model_validate(document.attributes or {})
            except ValidationError as error:
                raise mistake(error, PostgresBackfill, Places(file)) from error
    raise UserError(f"{file} declares no {TYPE}.")
