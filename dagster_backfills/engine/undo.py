"""Undoes a run by its journal: deletes rows that it inserted, restores rows that it updated or deleted.

Rows that have changed since the run are kept. An undo is an ordinary engine run whose source is the journal, so it has
batches, resumption, records and a journal of its own. Not here: its writes (`undoing`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg

from dagster_backfills.engine import audit
from dagster_backfills.engine.journal import SHAPE, Shape
from dagster_backfills.engine.plan import Report, rehearse
from dagster_backfills.engine.runner import Connect, Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.undoing import Undoing
from dagster_backfills.errors import UserError
from dagster_backfills.names import first_few

_RUNS = """
select r.run_id, r.undoes, r.finished_at is null
from backfill.runs as r where starts_with(r.run_id, %(run_id)s) order by r.started_at
"""
_LATEST = "select distinct on (started_at) run_id from backfill.runs order by started_at desc limit 3"
_UNDOES = "select undoes from backfill.runs where run_id = %s limit 1"
_WRITTEN = """
select b.asset, b.journal, sum(b.rows_inserted + b.rows_updated + b.rows_deleted)::bigint
from backfill.batches as b where b.run_id = %s
group by b.asset, b.journal having sum(b.rows_inserted + b.rows_updated + b.rows_deleted) > 0
order by min(b.committed_at), b.asset
"""
_ORDER = "select a from backfill.runs, unnest(assets) with ordinality as u (a, n) where run_id = %s order by step, n"
_PARTITIONS = """
select p from backfill.batches, unnest(partitions) as p where run_id = %s group by p order by max(committed_at) desc, p
"""
# Held by an undo's session while it runs, so that others can tell it from a killed one. Shared, so that a retry of the
# same run never waits for it.
_HOLD = "select pg_advisory_lock_shared(hashtext('backfill undo'), hashtext(%(run_id)s))"
# A killed undo of the same run leaves its record open.
_CLOSE = """
update backfill.runs set outcome = 'interrupted', finished_at = clock_timestamp()
where undoes = %(undoes)s and run_id <> %(run_id)s and finished_at is null
    and pg_try_advisory_xact_lock(hashtext('backfill undo'), hashtext(run_id))
"""


def find(conn: psycopg.Connection[Any], run_id: str, partitions: Sequence[str] = ()) -> Undoing:
    """Finds the run to undo by its ID or a unique prefix of it.

    partitions: undo only these. Raises UserError if there is no such run, if it did not write one of the partitions, or
    if changes of it are not in the journal.
    """
    matches = {row[0]: row[1:] for row in conn.execute(_RUNS, {"run_id": run_id})} if run_id else {}
    if len(matches) != 1:
        latest = ", ".join(row[0] for row in conn.execute(_LATEST))
        what = f"{len(matches)} run IDs begin" if matches else "No run ID begins"
        raise UserError(
            f"{what} with {run_id!r}.", f"The latest runs are {latest}." if latest else "There are no runs."
        )
    ((run_id, (undoes, unfinished)),) = matches.items()
    written: dict[str, list[Shape]] = {}
    for asset, shape, rows in conn.execute(_WRITTEN, [run_id]):
        if shape is None:
            raise UserError(
                f"Run {run_id} changed {rows:,} rows of {asset} that are not in the journal.",
                hint="The journal was disabled for the table, the table has no key, or the entries were pruned.",
            )
        written.setdefault(asset, []).append(SHAPE.validate_python(shape))
    order = [row[0] for row in conn.execute(_ORDER, [run_id])]
    run_partitions = [row[0] for row in conn.execute(_PARTITIONS, [run_id])]
    unknown = [key for key in partitions if key not in run_partitions]
    if unknown:
        raise UserError(
            f"Run {run_id} did not write partition {unknown[0]!r}.", f"It wrote {first_few(run_partitions)}."
        )
    redoes = False
    while undoes is not None:
        redoes = not redoes
        undoes = (conn.execute(_UNDOES, [undoes]).fetchone() or (None,))[0]
    conn.rollback()
    shapes = {asset: written[asset] for asset in reversed(order) if asset in written}
    chosen = [key for key in run_partitions if not partitions or key in partitions]
    return Undoing(run_id, shapes, chosen, redoes, unfinished)


def preview(
    connect: Connect,
    undoing: Undoing,
    settings: EngineSettings | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Report:
    """Returns what an undo would do. `unchanged` counts the rows that it would keep because they have changed since."""
    return rehearse(connect, settings, log, lambda runner: _batches(runner, undoing, ""))


def undo(runner: Runner, undoing: Undoing) -> Iterator[list[str]]:
    """Undoes a run and yields the partitions of each finished batch. Records it in the audit log.

    undoing: the result of `find`.
    """
    runner.run_identity = identity = replace(runner.run_identity, step="undo", undoes=undoing.run_id)
    domains = audit.domains_of(undoing.shapes)
    entry = audit.Entry(identity.started_by, "undo", undoing.run_id, domains, "started", [identity.run_id])
    with runner.connect() as conn:
        conn.execute(_HOLD, identity.binds)
        conn.execute(_CLOSE, identity.binds)
        audit.record(conn, entry)
        conn.commit()
        try:
            yield from _batches(runner, undoing, identity.run_id)
        except Exception as error:
            with suppress(psycopg.Error, UserError):
                _record(runner, replace(entry, outcome="failed", detail=f"{error}"))
            raise
    _record(runner, replace(entry, outcome="done"))


def _batches(runner: Runner, undoing: Undoing, run_id: str) -> Iterator[list[str]]:
    """Runs the undo `run_id`. If the undone run changed nothing, there are no batches, but the run is recorded."""
    partitions = undoing.partitions if undoing.shapes else []
    return runner.run_prepared(lambda conn: undoing.writes(conn, run_id), partitions)


def _record(runner: Runner, entry: audit.Entry) -> None:
    with runner.connect() as conn:
        audit.record(conn, entry)
        conn.commit()
