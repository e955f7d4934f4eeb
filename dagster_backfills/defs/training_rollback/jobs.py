"""Undoing one backfill: removing the records that it created and that nobody has completed since.

A dry run unless it is told otherwise; it can be repeated, and one that was cut off goes on where it stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
from pydantic import Field

from dagster_backfills.dagster.resource import PostgresResource
from dagster_backfills.defs.training.declared import COMPLETIONS, PROGRESS, TRAINING
from dagster_backfills.engine.model import WriteSet
from dagster_backfills.errors import UserError
from dagster_backfills.postgres.statements import load_queries

_BATCH_RECORDS = 20_000  # a second's work; an organization is never cut
_LISTED = 50


@dataclass(frozen=True)
class Preview:
    """What a rollback would do: organizations with their records to remove and to keep, the oldest first."""

    organizations: Sequence[tuple[str, int, int]]

    @property
    def remove(self) -> int:
        return sum(remove for _, remove, _ in self.organizations)

    @property
    def keep(self) -> int:
        return sum(keep for _, _, keep in self.organizations)

    def batches(self) -> Iterator[list[str]]:
        """Ids of the organizations that lose records, as many at a time as are a batch."""
        batch: list[str] = []
        held = 0
        for organization, remove, _ in self.organizations:
            if batch and held + remove > _BATCH_RECORDS:
                yield batch
                batch, held = [], 0
            if remove:
                batch.append(organization)
                held += remove
        if batch:
            yield batch


def preview(conn: psycopg.Connection[Any], backfill_id: str | None) -> Preview:
    """Counts for one backfill, or with None for every incomplete record. Raises UserError for an unknown backfill."""
    if backfill_id is not None:
        binds = {"backfill_id": backfill_id, "asset": COMPLETIONS.asset}
        known = conn.execute(_sql("known_backfill"), binds).fetchone()
        if known is None or not known[0]:
            raise UserError(
                f"There is no backfill {backfill_id!r} that has written completion records.",
                hint=_hint([row[0] for row in conn.execute(_sql("backfills"), {"shown": 5})]),
            )
    rows = conn.execute(_sql("preview"), {"backfill_id": backfill_id}).fetchall()
    conn.commit()
    return Preview([(row[0], row[1], row[2]) for row in rows])


def tell_planner(conn: psycopg.Connection[Any]) -> None:
    """Take statistics: right behind a backfill the planner believes in few records, and a batch would read them all."""
    conn.execute(_sql("take_statistics"))
    conn.commit()


def remove_batch(conn: psycopg.Connection[Any], organizations: Sequence[str], backfill_id: str | None) -> int:
    """Remove what there is to remove of these organizations, in one transaction. Returns the records removed."""
    binds = {"asset": COMPLETIONS.asset, "organizations": list(organizations), "backfill_id": backfill_id}
    with conn.transaction():
        conn.execute(_sql("lock_organizations"), binds)
        return conn.execute(_sql("remove_records"), binds).rowcount


def _hint(recent: Sequence[str]) -> str:
    if not recent:
        return "No record was created by a backfill, or all of these are rolled back."
    return f"The last that have records are {', '.join(recent)}."


def _sql(name: str) -> bytes:
    return load_queries(Path(__file__).with_name("rollback.sql"))[name].encode()


class RollBack(dg.Config):
    """What to undo. Exactly one of `backfill` and `remove_all_incomplete`."""

    backfill: str = Field(
        default="", description="The backfill: Dagster's backfill id, or the id of a run that was none's."
    )
    dry_run: bool = Field(default=True, description="Only say what would be removed and kept.")
    remove_all_incomplete: bool = Field(
        default=False, description="Remove every record that is not completed, whoever created it."
    )


@dg.op(
    description="Say what the rollback removes and keeps; unless it is a dry run, remove it, batch by batch, and "
    "count the progress of the organizations that lost records.",
    out=dg.Out(io_manager_key="io_manager"),
)
def remove_records(
    context: dg.OpExecutionContext, config: RollBack, postgres: PostgresResource
) -> dg.Output[WriteSet]:
    if bool(config.backfill) == config.remove_all_incomplete:
        raise dg.Failure("Give either `backfill` or `remove_all_incomplete: true`.", allow_retries=False)
    backfill_id = config.backfill or None
    removed, organizations = 0, list[str]()
    with postgres.connect() as conn:
        try:
            plan = preview(conn, backfill_id)
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(
            f"{plan.remove:,} records to remove, {plan.keep:,} to keep because they have been completed since"
            f"{'; a dry run, so nothing is removed' if config.dry_run else ''}."
        )
        if not config.dry_run:
            tell_planner(conn)
            for batch in plan.batches():
                removed += remove_batch(conn, batch, backfill_id)
                organizations += batch
    report = _report(plan, dry_run=config.dry_run, removed=removed)
    context.log_event(dg.AssetObservation(COMPLETIONS.asset.split("/"), metadata=report))
    TRAINING.add_partitions(context.instance, organizations)
    return dg.Output(TRAINING.write_set([PROGRESS], context.run, organizations), metadata=report)


def _report(plan: Preview, *, dry_run: bool, removed: int) -> dict[str, Any]:
    """Counts of the whole, and by organization for the first ones."""
    metadata: dict[str, Any] = {
        "dry_run": dry_run,
        "records_to_remove": plan.remove,
        "records_kept_completed": plan.keep,
        "records_removed": removed,
        "organizations": len(plan.organizations),
    }
    if plan.organizations:
        metadata["first_organizations"] = dg.MetadataValue.table(
            [
                dg.TableRecord({"organization": organization, "remove": remove, "keep": keep})
                for organization, remove, keep in plan.organizations[:_LISTED]
            ]
        )
    return metadata


@dg.job(
    description="Undo one backfill: remove the records that it created and that nobody has completed since.",
    executor_def=dg.in_process_executor,
    tags={"backfills/domain": "training"},
    hooks=TRAINING.rules.after(),
)
def rollback_training_backfill() -> None:
    remove_records()
