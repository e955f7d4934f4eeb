"""A user's project in one process: loads a declaration from its folder, ticks its sensors, runs its job."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import yaml

from dagster_backfills.components.backfill import Backfill
from dagster_backfills.components.postgres_backfill import PostgresBackfill, definitions_of
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.engine.triggers import SourceTriggers

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load(folder: Path, **attributes: Any) -> Backfill:
    """Loads the backfill that a folder declares, with these attributes replaced."""
    given = yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]
    return PostgresBackfill.model_validate(given | attributes).at(folder)


def written(tmp_path: Path, name: str, defs: str, queries: str) -> Path:
    """Writes a declaration into its own folder."""
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(defs)
    (folder / "queries.sql").write_text(queries)
    return folder


def copied(tmp_path: Path, example: str, *changes: tuple[str, str]) -> Path:
    """Copies an example and replaces texts, each of which must occur in it."""
    folder = tmp_path / example
    shutil.copytree(EXAMPLES / example, folder)
    for old, new in changes:
        found = [path for path in folder.iterdir() if old in path.read_text()]
        assert found, old
        for path in found:
            path.write_text(path.read_text().replace(old, new))
    return folder


def project_in(folder: Path) -> Path:
    """A Dagster project with one good declaration, kintell_users; returns its folder of definitions."""
    name = f"project_of_{folder.name}"
    defs = folder / name / "defs"
    defs.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        f'[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{name}"\n'
    )
    for package in (defs, defs.parent):
        (package / "__init__.py").touch()
    (defs.parent / "definitions.py").write_text(
        "from pathlib import Path\nimport dagster as dg\n"
        "@dg.definitions\ndef defs():\n    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    copied(defs, "kintell_users")
    return defs


def said_of(defs: dg.Definitions) -> dict[str, str]:
    """The description of each asset."""
    graph = defs.resolve_asset_graph()
    return {key.to_user_string(): graph.get(key).description or "" for key in graph.materializable_asset_keys}


class Adopter:
    """One declared backfill on one database."""

    def __init__(self, backfill: Backfill, url: str, instance: dg.DagsterInstance, **settings: Any) -> None:
        self.backfill, self.instance = backfill, instance
        postgres = PostgresResource(url=url)
        self.resources = {
            backfill.database: postgres,
            backfill.io_manager: PostgresIOManager(postgres=postgres, **{"retry_seconds": 0.001, **settings}),
        }
        defs = definitions_of(backfill)
        self.sensors = list(defs.sensors or [])
        self.repository = dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            jobs=defs.jobs,
            sensors=defs.sensors,
            schedules=defs.schedules,
            resources=self.resources,
        ).get_repository_def()

    def refresh(self, which: str = "due", *partitions: str, expect: bool = True) -> dg.ExecuteInProcessResult:
        """Runs the refresh job, which selects its own partitions."""
        result = self.repository.get_job(f"refresh_{self.backfill.name}").execute_in_process(
            run_config={"which": which, "partitions": list(partitions)},
            instance=self.instance,
            raise_on_error=False,
        )
        assert result.success is expect, [e.message for e in result.all_events if e.is_failure]
        return result

    def tick(self) -> int:
        """Ticks every sensor once, and executes the requested runs. Returns their number."""
        runs = 0
        for sensor in self.sensors:
            context = dg.build_sensor_context(
                self.instance, resources=self.resources, repository_def=self.repository
            )
            with context:
                data = sensor.evaluate_tick(context)
            for request in data.dynamic_partitions_requests or []:
                keys = [str(key) for key in request.partition_keys]
                if isinstance(request, dg.AddDynamicPartitionsRequest):
                    self.instance.add_dynamic_partitions(request.partitions_def_name, keys)
                else:
                    for key in keys:
                        self.instance.delete_dynamic_partition(request.partitions_def_name, key)
            for _ in data.run_requests or []:
                self.refresh()
                runs += 1
        return runs

    def settle(self) -> int:
        """Ticks until nothing is due. Returns the number of runs."""
        total = 0
        for _ in range(10):
            runs = self.tick()
            if not runs:
                return total
            total += runs
        raise AssertionError("it never comes to rest")

    def triggers(self) -> list[SourceTriggers]:
        return [SourceTriggers(table) for table in self.backfill.watched()]


@contextmanager
def adopter(backfill: Backfill, url: str, **settings: Any) -> Iterator[Adopter]:
    """settings: of the engine."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Adopter(backfill, url, instance, **settings)


def query(conn: psycopg.Connection[Any], text: str) -> list[Any]:
    """Returns the rows of a statement, or the values if it has one column."""
    rows = conn.execute(text).fetchall()
    return [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows


def catalog(conn: psycopg.Connection[Any], *schemas: str) -> list[Any]:
    """Returns all objects in these schemas: columns, defaults, constraints, indexes, triggers, rules, policies."""
    return conn.execute(
        """
        select 'column', c.relname::text, a.attname::text || ' ' || format_type(a.atttypid, a.atttypmod),
            pg_get_expr(d.adbin, d.adrelid)
        from pg_attribute as a inner join pg_class as c on a.attrelid = c.oid
        left join pg_attrdef as d on a.attrelid = d.adrelid and a.attnum = d.adnum
        where c.relnamespace = any(%(schemas)s::regnamespace[]) and a.attnum > 0
        union all
        select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
        where connamespace = any(%(schemas)s::regnamespace[])
        union all
        select 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(t.oid)
        from pg_trigger as t inner join pg_class as c on t.tgrelid = c.oid
        where c.relnamespace = any(%(schemas)s::regnamespace[]) and not tgisinternal
        union all
        select 'routine', proname, '', '' from pg_proc where pronamespace = any(%(schemas)s::regnamespace[])
        order by 1, 2, 3, 4
        """,
        {"schemas": list(schemas)},
    ).fetchall()
