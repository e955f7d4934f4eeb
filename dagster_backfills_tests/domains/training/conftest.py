"""Helpers that create organizations in a real database, and run the domain's jobs on the test's own instance."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import psycopg
import pytest

from dagster_backfills.components.assets import build_assets
from dagster_backfills.components.refresh import build_job
from dagster_backfills.dagster.io_manager import PostgresIOManager
from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.training.declared import COMPLETIONS, PROGRESS, TRAINING
from dagster_backfills.defs.training_rollback.jobs import rollback_training_backfill

VIDEOS = ["sat-1", "sat-2", "sat-3"]


@dataclass
class Training:
    """One database, one Dagster instance."""

    url: str
    conn: psycopg.Connection[Any]
    instance: dg.DagsterInstance
    settings: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    @property
    def resources(self) -> dict[str, Any]:
        postgres = PostgresResource(url=self.url)
        return {"postgres": postgres, "io_manager": PostgresIOManager(postgres=postgres, **self.settings)}

    # ---- the application's side

    def add_videos(self, videos: Sequence[str] = VIDEOS) -> None:
        self.conn.cursor().executemany(
            "insert into training.training_videos values (%s, %s, %s)",
            [(video, f"Video {video}", position) for position, video in enumerate(videos)],
        )

    def add_organization(self, organization: str, members: Sequence[str] = (), *, day: int = 1) -> None:
        self.conn.execute(
            "insert into training.organizations values (%s, %s, make_timestamptz(2024, 1, %s, 0, 0, 0))",
            [organization, f"Name of {organization}", day],
        )
        for member in members:
            self.add_member(organization, member)

    def add_member(self, organization: str, member: str, *, deactivated: bool = False) -> None:
        self.conn.execute(
            "insert into training.members (id, organization_id, user_email, deactivated) values (%s, %s, %s, %s)",
            [member, organization, f"{member}@example.org", deactivated],
        )

    def complete(self, member: str, video: str = "sat-1") -> None:
        self.conn.execute(
            "update training.employee_training_video_completions set completed_at = now()"
            " where member_id = %s and video_id = %s",
            [member, video],
        )

    # ---- Dagster's side

    def materialize(
        self, *organizations: str, select: Sequence[str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materializes the assets over a range from the first to the last of these organizations."""
        keys = [row[0] for row in self.rows("select id from training.organizations order by created_at, id")]
        self.instance.add_dynamic_partitions(str(TRAINING.partitions_def.name), keys)
        tags = {
            "dagster/asset_partition_range_start": organizations[0],
            "dagster/asset_partition_range_end": organizations[-1],
        }
        return dg.materialize(
            [build_assets(TRAINING)],
            selection=select,
            instance=self.instance,
            resources=self.resources,
            tags=tags,
            raise_on_error=False,
        )

    def fill(self, *organizations: str, which: str = "due") -> dg.ExecuteInProcessResult:
        """Runs the job that automation runs, for these organizations or those that need it."""
        config = {"which": "named" if organizations else which, "partitions": list(organizations)}
        return build_job(TRAINING).execute_in_process(
            run_config=config,
            instance=self.instance,
            resources=self.resources,
            raise_on_error=False,
        )

    def roll_back(self, **config: Any) -> dg.ExecuteInProcessResult:
        return rollback_training_backfill.execute_in_process(
            run_config=config,
            instance=self.instance,
            resources=self.resources,
            raise_on_error=False,
        )

    def check(self) -> dict[str, dg.AssetCheckEvaluation]:
        """The result of every check, by name."""
        definitions = dg.Definitions(
            assets=[build_assets(TRAINING)],
            asset_checks=[TRAINING.rules.definition()],
            jobs=[dg.define_asset_job("checks", dg.AssetSelection.all_asset_checks())],
            resources=self.resources,
        )
        result = definitions.resolve_job_def("checks").execute_in_process(instance=self.instance)
        return {each.check_name: each for each in result.get_asset_check_evaluations()}

    # ---- what is there

    def rows(self, query: str, *binds: Any) -> list[tuple[Any, ...]]:
        return self.conn.execute(query, list(binds)).fetchall()

    def records(self, organization: str) -> set[tuple[str, str]]:
        return set(
            self.rows(
                "select c.member_id, c.video_id from training.employee_training_video_completions as c"
                " join training.members as m on m.id = c.member_id where m.organization_id = %s",
                organization,
            )
        )

    def progress(self, organization: str) -> tuple[int, int, int, int] | None:
        found = self.rows(
            "select members, records, completed, percent from training.organization_training_progress"
            " where organization_id = %s",
            organization,
        )
        return found[0] if found else None

    def stale(self, asset: str) -> set[str]:
        return {row[0] for row in self.rows("select partition from backfill.stale where asset = %s", asset)}

    @property
    def due(self) -> set[str]:
        return self.stale(COMPLETIONS.asset)

    @property
    def uncounted(self) -> set[str]:
        return self.stale(PROGRESS.asset)

    def failures(self) -> list[tuple[str, str | None, str]]:
        return self.rows(
            "select partition, unit, message from backfill.failures where resolved_at is null"
            " order by partition, unit"
        )

    def materialized(self, asset: str = COMPLETIONS.asset) -> set[str]:
        return self.instance.get_materialized_partitions(dg.AssetKey(asset.split("/")))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def training(database_url: str, conn: psycopg.Connection[Any], instance: dg.DagsterInstance) -> Training:
    world = Training(database_url, conn, instance)
    world.add_videos()
    return world


@pytest.fixture
def refuse(conn: psycopg.Connection[Any]) -> Callable[[str], None]:
    """A function that makes the database reject all records of a member."""

    def refuse(member: str) -> None:
        conn.execute(
            """
            create table if not exists public.refused (member_id text primary key);
            create or replace function public.refuse() returns trigger language plpgsql as $$
            begin
                if exists (select from public.refused as r where r.member_id = new.member_id) then
                    raise exception 'member % may not be trained', new.member_id;
                end if;
                return new;
            end $$;
            create or replace trigger refuse before insert on training.employee_training_video_completions
            for each row execute function public.refuse();
            """
        )
        conn.execute("insert into public.refused values (%s)", [member])

    return refuse


@pytest.fixture
def make_connection(database_url: str) -> Iterator[Callable[[], psycopg.Connection[Any]]]:
    """A function that opens another autocommit connection to the test's database."""
    opened: list[psycopg.Connection[Any]] = []

    def make() -> psycopg.Connection[Any]:
        opened.append(psycopg.connect(database_url, autocommit=True))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()
