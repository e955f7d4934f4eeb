"""Undoing a run by its journal: what it added is removed, what it changed or removed is put back, if it is still so.

A run of the engine like any other, over writes whose source is the journal: batches, resumption, account, ledger and
its own journal follow. Not here: these writes (`undoing`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg

from dagster_backfills.engine import audit, ledger
from dagster_backfills.engine.journal import Shape
from dagster_backfills.engine.ledger import RunIdentity
from dagster_backfills.engine.plan import Report, rehearse
from dagster_backfills.engine.runner import Connect, Runner
from dagster_backfills.engine.settings import EngineSettings
from dagster_backfills.engine.undoing import Undoing
from dagster_backfills.errors import UserError

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
# An undo of the same run that was killed leaves its account open.
_CLOSE = """
update backfill.runs set outcome = 'interrupted', finished_at = clock_timestamp()
where undoes = %(undoes)s and run_id <> %(run_id)s and finished_at is null
"""


def find(conn: psycopg.Connection[Any], run_id: str, partitions: Sequence[str] = ()) -> Undoing:
    """The run of this id, or of an id that begins so. Raises UserError where it can't be undone, or not there."""
    found = {row[0]: row[1:] for row in conn.execute(_RUNS, {"run_id": run_id})} if run_id else {}
    if len(found) != 1:
        latest = ", ".join(row[0] for row in conn.execute(_LATEST))
        what = f"{len(found)} runs begin" if found else "No run begins"
        raise UserError(
            f"{what} with {run_id!r}.", f"The latest are {latest}." if latest else "Nothing has run."
        )
    ((run_id, (undoes, unfinished)),) = found.items()
    written: dict[str, list[Shape]] = {}
    for asset, noted, rows in conn.execute(_WRITTEN, [run_id]):
        if noted is None:
            raise UserError(
                f"Run {run_id} changed {rows:,} rows of {asset} of which the journal says nothing.",
                hint="It was switched off for that table, the table has no key, or its days are over.",
            )
        written.setdefault(asset, []).append(Shape.read(noted))
    order = [row[0] for row in conn.execute(_ORDER, [run_id])]
    there = [row[0] for row in conn.execute(_PARTITIONS, [run_id])]
    strangers = [key for key in partitions if key not in there]
    if strangers:
        raise UserError(f"Run {run_id} has written no partition {strangers[0]!r}.", _some(there))
    redoes = False
    while undoes is not None:
        redoes = not redoes
        undoes = (conn.execute(_UNDOES, [undoes]).fetchone() or (None,))[0]
    conn.rollback()
    shapes = {asset: written[asset] for asset in reversed(order) if asset in written}
    chosen = [key for key in there if not partitions or key in partitions]
    return Undoing(run_id, shapes, chosen, redoes, unfinished)


def preview(
    connect: Connect,
    undoing: Undoing,
    settings: EngineSettings | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> Report:
    """What undoing would do; `unchanged` are rows that are kept, because they were changed since."""
    if not undoing.shapes:
        return Report.nothing()
    prepare = undoing.prepare("")
    return rehearse(connect, settings, log, lambda runner: runner.run_prepared(prepare, undoing.partitions))


def undo(runner: Runner, undoing: Undoing) -> Iterator[list[str]]:
    """Undo it, yielding the partitions that are through. The runner's identity says what is undone: `undo_identity`."""
    identity = runner.run_identity
    domains = audit.domains_of(list(undoing.shapes))
    asked = audit.Entry(identity.started_by, "undo", undoing.run_id, domains, "started", [identity.run_id])
    with runner.connect() as conn:
        conn.execute(_CLOSE, identity.binds)
        audit.record(conn, asked)
        conn.commit()
    try:
        if undoing.shapes:
            yield from runner.run_prepared(undoing.prepare(identity.run_id), undoing.partitions)
        else:  # of a run that changed nothing there is an account all the same
            with runner.connect() as conn:
                ledger.start(conn, identity, [], 0, None)
                ledger.finish(conn, identity, "succeeded")
    except Exception as error:
        with suppress(psycopg.Error, UserError):
            _record(runner, replace(asked, outcome="failed", detail=f"{error}"))
        raise
    _record(runner, replace(asked, outcome="done"))


def _record(runner: Runner, entry: audit.Entry) -> None:
    with runner.connect() as conn:
        audit.record(conn, entry)
        conn.commit()


def undo_identity(
    undoing: Undoing, run_id: str, root_run_id: str = "", *, resumes: bool = False, started_by: str = ""
) -> RunIdentity:
    """The identity of a run that undoes another."""
    return RunIdentity(run_id, "undo", root_run_id, resumes, undoing.run_id, started_by)


def _some(there: Sequence[str]) -> str:
    return f"It has written {', '.join(there[:5])}{', …' if len(there) > 5 else ''}."
