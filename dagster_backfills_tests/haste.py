"""The project's own instance settings with shorter waits, for tests that need not wait as long as an installation."""

from collections.abc import Mapping

# Seconds of the daemon, of whose sensors each tick costs something; and run monitoring's, which are in the settings.
HASTE = {"backfills": 1, "sensors": 5, "grace": 5, "sessions": 1}
MONITORING = {"poll_interval_seconds: 30": "poll_interval_seconds: 1"}


def hurried(settings: str, changes: Mapping[str, str]) -> str:
    """A `dagster.yaml` with each key of `changes` replaced by its value; AssertionError where one is not in it."""
    for slow, fast in changes.items():
        assert slow in settings, slow
        settings = settings.replace(slow, fast)
    return settings
