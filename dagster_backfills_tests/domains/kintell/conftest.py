"""What the importer's tests share: an import that starts again does so at once."""

import time
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def an_import_starts_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))
    monkeypatch.setattr("dagster_backfills.domains.kintell.importing.importer.time", hurried)
