"""How long to leave alone what has failed, so that it is tried again and not over and over."""

from datetime import datetime, timedelta


def back_off(
    failures: int, *, first: timedelta = timedelta(seconds=30), most: timedelta = timedelta(hours=1)
) -> timedelta:
    """How long to leave alone what has failed `failures` times in a row: doubling, up to `most`."""
    return min(first * 2 ** min(max(failures - 1, 0), 20), most) if failures else timedelta()


def is_resting(failures: int, latest: datetime | None, now: datetime) -> bool:
    """Whether it is too early to try again. A latest failure still to come was dated by a clock that was wrong."""
    return latest is not None and timedelta() <= now - latest < back_off(failures)
