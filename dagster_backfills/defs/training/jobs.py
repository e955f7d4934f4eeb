"""One run over whichever organizations need it, however scattered: what automation and the command line launch."""

from collections.abc import Iterator
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from dagster_backfills.defs.training.checks import RULES
from dagster_backfills.defs.training.partitions import organizations_partitions
from dagster_backfills.defs.training.reporting import observe
from dagster_backfills.defs.training.tables import (
    ASSETS,
    BATCH_SECONDS,
    COMPLETIONS,
    PROGRESS,
    backfill_id_of,
    completions,
    progress,
    statement,
)
from dagster_backfills.lib.engine.model import WriteSet
from dagster_backfills.lib.postgres.resource import PostgresResource

_BINDS = {"assets": ASSETS, "completions": COMPLETIONS.asset, "progress": PROGRESS.asset}


class Which(Enum):
    """Which organizations a run fills. Dagster's config goes by the names, so these are as they are written there."""

    due = "due"
    stale = "stale"
    missing = "missing"
    failed = "failed"
    all = "all"
    named = "named"


class FillOrganizations(dg.Config):
    """Which organizations to fill."""

    which: Which = Field(
        default=Which.due,
        description="due: stale, new, or with members that failed a while ago; stale; missing: lacking records; "
        "failed; all; named: those in `organizations`.",
    )
    organizations: list[str] = Field(default=[], description="Organization ids, with `which: named`.")


@dg.op(
    description="Find the organizations that are asked for and create their missing records, reporting each by itself.",
    out=dg.Out(io_manager_key="io_manager"),
)
def fill_organizations(
    context: dg.OpExecutionContext, config: FillOrganizations, postgres: PostgresResource
) -> Iterator[Any]:
    if (config.which is Which.named) != bool(config.organizations):
        raise dg.Failure("Give `organizations` with `which: named`, and only then.", allow_retries=False)
    name = "due_organizations" if config.which is Which.due else "organizations_to_fill"
    keys = _keys(postgres, name, which=config.which.value, named=config.organizations)
    unknown = sorted(set(config.organizations) - set(keys))
    if unknown:
        raise dg.Failure(f"There is no organization {', '.join(map(repr, unknown))}.", allow_retries=False)
    context.instance.add_dynamic_partitions(str(organizations_partitions.name), keys)
    context.log.info(f"{len(keys):,} organizations to fill ({config.which.value}).")
    writes = [completions(backfill_id_of(context.run)), progress()]
    yield dg.Output(WriteSet(writes, keys=keys, batch_seconds=BATCH_SECONDS))
    yield from observe(postgres, context.run)


@dg.op(
    description="Count again where members came, went or finished a video, and nobody lacks a record.",
    out=dg.Out(io_manager_key="io_manager"),
)
def count_progress(context: dg.OpExecutionContext, postgres: PostgresResource) -> WriteSet:
    keys = _keys(postgres, "due_progress")
    context.instance.add_dynamic_partitions(str(organizations_partitions.name), keys)
    context.log.info(f"{len(keys):,} organizations to count.")
    return WriteSet([progress()], keys=keys)


def _keys(postgres: PostgresResource, name: str, **binds: object) -> list[str]:
    with postgres.connect() as conn:
        keys = [row[0] for row in conn.execute(statement(name), {**_BINDS, **binds})]
        conn.commit()
    return keys


@dg.job(
    description="Create the missing records of the organizations that need it and count their progress, in one run.",
    executor_def=dg.in_process_executor,
    tags={"backfills/domain": "training"},
    hooks=RULES.after(),
)
def refresh_training_completions() -> None:
    # Two steps that do not wait for each other: an organization that can't be filled holds up no one's counts.
    fill_organizations()
    count_progress()
