"""The project's own instance settings with shorter waits, for tests that need not wait as long as an installation."""

from collections.abc import Mapping


def hurried(settings: str, changes: Mapping[str, str]) -> str:
    """A `dagster.yaml` with each key of `changes` replaced by its value; AssertionError where one is not in it."""
    for slow, fast in changes.items():
        assert slow in settings, slow
        settings = settings.replace(slow, fast)
    return settings
