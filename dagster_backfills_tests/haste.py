"""Shorter waiting times for the daemon and the instance settings in tests."""

from collections.abc import Mapping

# Daemon intervals in seconds (each sensor tick costs CPU), and whether it keeps database sessions; see `servers`.
HASTE = {"backfills": 1, "sensors": 5, "grace": 5, "sessions": 1}
MONITORING = {"poll_interval_seconds: 30": "poll_interval_seconds: 1"}


def hurried(settings: str, changes: Mapping[str, str]) -> str:
    """The text of a `dagster.yaml` with each key of `changes` replaced by its value. Each must occur."""
    for slow, fast in changes.items():
        assert slow in settings, slow
        settings = settings.replace(slow, fast)
    return settings
