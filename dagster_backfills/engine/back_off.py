"""How long to leave alone what has failed, so that it is tried again and not over and over."""

from datetime import datetime, timedelta

_FIRST, _MOST = timedelta(seconds=30), timedelta(hours=1)


def back_off(failures: int) -> timedelta:
    """How long to leave alone what has failed `failures` times in a row: twice as long after each, an hour at most."""
    return min(_FIRST * 2 ** min(failures - 1, 20), _MOST) if failures else timedelta()


def is_resting(failures: int, latest: datetime | None, now: datetime) -> bool:
    """Whether it is too early to try again. A latest failure still to come was dated by a clock that was wrong."""
    return latest is not None and timedelta() <= now - latest < back_off(failures)
