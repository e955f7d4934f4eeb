"""Operator controls of a backfill: pause, rest between batches, rate limit and write window. Reads and sets them.

Not here: their enforcement in a run (`throttle`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import time
from math import inf
from typing import Any

import psycopg
from psycopg.rows import class_row

from dagster_backfills.engine import audit
from dagster_backfills.errors import UserError

# A window that crosses midnight ends before it starts.
_READ = """
select
    backfill, paused, rest_seconds, rows_per_second, window_start, window_end, zone,
    window_start is not null and not (
        case
            when window_start < window_end
                then (now() at time zone zone)::time >= window_start and (now() at time zone zone)::time < window_end
            else (now() at time zone zone)::time >= window_start or (now() at time zone zone)::time < window_end
        end
    ) as closed
from backfill.controls
where assets && %(assets)s::text[]
"""
# Null leaves a value unchanged; 0 removes it.
_SET = """
insert into backfill.controls as c (
    backfill, assets, paused, rest_seconds, rows_per_second, window_start, window_end, zone
) values (
    %(backfill)s, %(assets)s, coalesce(%(paused)s, false), nullif(%(rest_seconds)s::double precision, 0),
    nullif(%(rows_per_second)s::double precision, 0), %(window_start)s, %(window_end)s, coalesce(%(zone)s, 'UTC')
)
on conflict (backfill) do update
set assets = excluded.assets,
    paused = coalesce(%(paused)s, c.paused),
    rest_seconds = nullif(coalesce(%(rest_seconds)s, c.rest_seconds), 0),
    rows_per_second = nullif(coalesce(%(rows_per_second)s, c.rows_per_second), 0),
    window_start = case when %(window_given)s then excluded.window_start else c.window_start end,
    window_end = case when %(window_given)s then excluded.window_end else c.window_end end,
    zone = coalesce(%(zone)s, c.zone),
    changed_at = clock_timestamp()
"""


@dataclass(frozen=True)
class Control:
    """The controls of one backfill. closed: the current time is outside its write window."""

    backfill: str
    paused: bool
    rest_seconds: float | None
    rows_per_second: float | None
    window_start: time | None
    window_end: time | None
    zone: str
    closed: bool

    @property
    def waits(self) -> str | None:
        """Why the backfill may not write now; None if it may."""
        if self.paused:
            return f"{self.backfill} is paused; resume it with: backfills resume {self.backfill}"
        if self.closed:
            return (
                f"{self.backfill} may write only from {self.window_start:%H:%M} to {self.window_end:%H:%M} "
                f"({self.zone})"
            )
        return None


@dataclass(frozen=True)
class Setting:
    """A change of controls. None leaves a value unchanged; 0 removes it. window: `22:00-05:00`, or `none`."""

    paused: bool | None = None
    rest_seconds: float | None = None
    rows_per_second: float | None = None
    window: str | None = None
    zone: str | None = None

    def hours(self) -> tuple[time | None, time | None]:
        """Returns the window's start and end; (None, None) for no window. Raises UserError if it can't be parsed."""
        if self.window in (None, "none"):
            return None, None
        try:
            start, end = (
                time.fromisoformat(text.strip()) for text in self.window.replace("–", "-").split("-")
            )
        except ValueError:
            raise UserError(
                f"{self.window!r} is not a time window.", "Write it as 22:00-05:00, or none."
            ) from None
        if start == end:
            raise UserError(
                f"The window {self.window!r} is empty: it starts and ends at the same time.",
                "Write none to allow all hours.",
            )
        return start, end

    def check_numbers(self) -> None:
        """Raises UserError for a negative, infinite or NaN value: a run would wait for it forever."""
        for name, value in (("rest", self.rest_seconds), ("rows per second", self.rows_per_second)):
            if value is not None and not 0 <= value < inf:
                raise UserError(f"{name}: {value:g} is out of range.", "Give 0 or more; 0 removes the limit.")


def read(conn: psycopg.Connection[Any], assets: Sequence[str]) -> list[Control]:
    """Returns the controls of every backfill that writes one of these assets."""
    cursor = conn.cursor(row_factory=class_row(Control))
    return cursor.execute(_READ, {"assets": list(assets)}).fetchall()


def change(
    conn: psycopg.Connection[Any], backfill: str, assets: Sequence[str], setting: Setting, by: str
) -> None:
    """Applies a setting, records it in the audit log and commits. Runs obey it from their next batch.

    by: the user to record. Raises UserError for an invalid value.
    """
    start, end = setting.hours()
    setting.check_numbers()
    if setting.zone is not None and not _is_zone(conn, setting.zone):
        raise UserError(
            f"Postgres does not know the time zone {setting.zone!r}.", "Use a name such as Europe/Berlin."
        )
    binds = {
        **vars(setting), "backfill": backfill, "assets": list(assets), "window_given": setting.window is not None,
        "window_start": start, "window_end": end,
    }  # fmt: skip
    conn.execute(_SET, binds)
    detail = ", ".join(f"{name} = {value}" for name, value in vars(setting).items() if value is not None)
    entry = audit.Entry(by, "control", backfill, audit.domains_of(assets), "done", detail=detail)
    audit.record(conn, entry)
    conn.commit()


def _is_zone(conn: psycopg.Connection[Any], zone: str) -> bool:
    row = conn.execute("select count(*) from pg_timezone_names where name = %s", [zone]).fetchone()
    return row != (0,)
