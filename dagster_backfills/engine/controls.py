"""What operators have set of a backfill: pause, rest, rows a second, and the hours in which it may write.

Here it is read and set. Not here: that a run keeps to it (`throttle`).
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

# A window that goes over midnight is one whose end comes before its start.
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
# What is null stays as it is, and 0 takes it away.
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
    """What is set of one backfill. `closed`: it is not the hour in which it may write."""

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
        """Why nothing may be written now."""
        if self.paused:
            return f"{self.backfill} is paused; go on with: backfills resume {self.backfill}"
        if self.closed:
            return f"{self.backfill} may write from {self.window_start:%H:%M} to {self.window_end:%H:%M} ({self.zone})"
        return None


@dataclass(frozen=True)
class Setting:
    """What is to be set; None leaves it as it is, 0 takes it away. window: `22:00-05:00`, or `none`."""

    paused: bool | None = None
    rest_seconds: float | None = None
    rows_per_second: float | None = None
    window: str | None = None
    zone: str | None = None

    def hours(self) -> tuple[time | None, time | None]:
        """The window's start and end. Raises UserError for anything else."""
        if self.window in (None, "none"):
            return None, None
        try:
            start, end = (
                time.fromisoformat(text.strip()) for text in self.window.replace("–", "-").split("-")
            )
        except ValueError:
            raise UserError(
                f"{self.window!r} is not a window of hours.", "Write 22:00-05:00, or none."
            ) from None
        if start == end:
            raise UserError(f"The window {self.window!r} has no end.", "Write none for all hours.")
        return start, end

    def refuse_no_numbers(self) -> None:
        """Raise UserError for a speed that is none: it would be waited for without end."""
        for what, value in (("rest", self.rest_seconds), ("rows a second", self.rows_per_second)):
            if value is not None and not 0 <= value < inf:
                raise UserError(
                    f"{what}: {value:g} can't be set.", "Give a number from 0 on; 0 takes it away."
                )


def read(conn: psycopg.Connection[Any], assets: Sequence[str]) -> list[Control]:
    """What is set of the backfills that write these assets."""
    cursor = conn.cursor(row_factory=class_row(Control))
    return cursor.execute(_READ, {"assets": list(assets)}).fetchall()


def change(
    conn: psycopg.Connection[Any], backfill: str, assets: Sequence[str], setting: Setting, by: str
) -> None:
    """Set it, from each run's next batch on, as asked `by`. Raises UserError for what can't be set."""
    start, end = setting.hours()
    setting.refuse_no_numbers()
    if setting.zone is not None and not _is_zone(conn, setting.zone):
        raise UserError(f"Postgres knows no time zone {setting.zone!r}.", "Write Europe/Berlin, say.")
    binds = {
        **vars(setting), "backfill": backfill, "assets": list(assets), "window_given": setting.window is not None,
        "window_start": start, "window_end": end,
    }  # fmt: skip
    conn.execute(_SET, binds)
    said = ", ".join(f"{name} = {value}" for name, value in vars(setting).items() if value is not None)
    entry = audit.Entry(by, "control", backfill, audit.domains_of(assets), "done", detail=said)
    audit.record(conn, entry)
    conn.commit()


def _is_zone(conn: psycopg.Connection[Any], zone: str) -> bool:
    known = conn.execute("select count(*) from pg_timezone_names where name = %s", [zone]).fetchone()
    return known != (0,)
