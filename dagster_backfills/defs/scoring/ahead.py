"""Reading the next members' features while the last ones' rows are written: one more connection, one thread."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

import psycopg

from dagster_backfills.defs.scoring.features import read_frame, statement

if TYPE_CHECKING:
    import pandas as pd

Connect = Callable[[], AbstractContextManager[psycopg.Connection]]
_AHEAD = 2  # chunks that wait to be taken
_LOOK_SECONDS = 0.2


class FeaturesAhead:
    """Features of a day's members in the order of their ids, as the engine takes them.

    It only saves time: whatever it does not have, because members were skipped, or a chunk has a member whose
    features can't be computed, or its connection was lost, `take` reads on the caller's connection.
    """

    def __init__(self, connect: Connect, day: date, units: str, gym: str | None, chunk: int) -> None:
        self._connect, self._day, self._units, self._gym, self._chunk = connect, day, units, gym, chunk
        self._ready: Queue[tuple[str, pd.DataFrame | None] | None] = Queue(_AHEAD)
        self._stop = Event()
        self._thread: Thread | None = None
        self._held: list[pd.DataFrame] = []
        self._upto = ""
        self._over = False

    def __enter__(self) -> "FeaturesAhead":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def take(self, conn: psycopg.Connection, members: Sequence[str]) -> "pd.DataFrame":
        """The features of `members`, which are sorted as their bytes are."""
        import pandas as pd

        if self._thread is None:
            self._thread = Thread(target=self._read, args=(members[0],), name="features ahead", daemon=True)
            self._thread.start()
        while self._upto < members[-1] and not self._over:
            self._receive()
        held = pd.concat(self._held) if self._held else None
        if held is None:
            return read_frame(conn, "features", self._day, members)
        wanted = held["member_id"].isin(members)
        found = held.loc[wanted]
        self._held = [held.loc[held["member_id"] > members[-1]]]
        known = set(found["member_id"])
        missing = [member for member in members if member not in known]
        if missing:
            found = pd.concat([found, read_frame(conn, "features", self._day, missing)])
        return found.reset_index(drop=True)

    def _receive(self) -> None:
        try:
            item = self._ready.get(timeout=_LOOK_SECONDS)
        except Empty:
            self._over = self._thread is None or not self._thread.is_alive()
            return
        if item is None:
            self._over = True
            return
        self._upto = item[0]
        if item[1] is not None:
            self._held.append(item[1])

    def _read(self, first: str) -> None:
        try:
            with self._connect() as conn:
                for members in self._members(conn, first):
                    try:
                        frame = read_frame(conn, "features", self._day, members)
                    except psycopg.DataError:
                        frame = None
                    conn.rollback()
                    self._put((members[-1], frame))
        except Exception:  # the caller reads by itself, and meets what is wrong where it can be dealt with
            self._over = True
        finally:
            self._put(None)

    def _members(self, conn: psycopg.Connection, first: str) -> Iterator[list[str]]:
        # Around a named statement of the project's own.
        query = (
            f'select q.unit from (\n{statement(self._units)}\n) as q where q.unit collate "C" >= %(first)s '  # noqa: S608
            'order by q.unit collate "C"'
        )
        binds = {"partition_keys": [self._day.isoformat()], "gym": self._gym, "first": first}
        conn.execute("set jit = off")
        with conn.cursor(name="features_ahead", withhold=True) as cursor:
            cursor.execute(query, binds)
            conn.commit()
            while not self._stop.is_set() and (rows := cursor.fetchmany(self._chunk)):
                yield [row[0] for row in rows]

    def _put(self, item: "tuple[str, pd.DataFrame | None] | None") -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_LOOK_SECONDS)
                return
            except Full:
                continue
