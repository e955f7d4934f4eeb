"""Exponential back-off between retries."""

from datetime import datetime, timedelta

_FIRST, _MOST = timedelta(seconds=30), timedelta(hours=1)


def back_off(failures: int) -> timedelta:
    """Returns the delay after `failures` consecutive failures: 30 seconds, doubled each time, at most an hour."""
    return min(_FIRST * 2 ** min(failures - 1, 20), _MOST) if failures else timedelta()


def is_resting(failures: int, latest: datetime | None, now: datetime) -> bool:
    """Whether it is too early to retry. A failure dated in the future (a wrong clock) does not delay the retry."""
    return latest is not None and timedelta() <= now - latest < back_off(failures)
