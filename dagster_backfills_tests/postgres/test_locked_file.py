"""A lock between processes of one machine: its holder can be queried, and querying changes nothing."""

import os

import pytest

from dagster_backfills.postgres.locked_file import HeldElsewhereError, lock_holder, locked_file


def test_the_lock_holder_is_known_while_the_lock_is_held(tmp_path):
    path = tmp_path / "folder" / "a.lock"
    assert lock_holder(path) is None
    assert not path.exists()
    with locked_file(path):
        assert lock_holder(path) == os.getpid()
        with pytest.raises(HeldElsewhereError) as refused, locked_file(path):
            pass
        assert refused.value.pid == os.getpid()
    assert lock_holder(path) is None


def test_querying_the_holder_does_not_change_the_file(tmp_path):
    path = tmp_path / "precious"
    path.write_text("x" * 1700)
    path.chmod(0o400)
    assert lock_holder(path) is None
    assert path.read_text() == "x" * 1700
