"""`backfills failures` with names that there are, and names that there are not."""

import pytest

from dagster_backfills_tests.cli.conftest import Cli

FAILED = """
    insert into backfill.failures (run_id, asset, partition, unit, error_class, sqlstate, message)
    values ('r', %s, 'p', 'u', 'data', '22000', 'no')
"""


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["retry", "--yes"]])
def test_an_asset_that_there_is_not_is_refused_with_what_comes_close(cli: Cli, command):
    done = cli("failures", *command, "--asset", "progress/cohort_stat")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "There is no asset or domain 'progress/cohort_stat'. There are progress/cohort_stats" in done.stderr
    )


def test_a_domain_or_an_asset_of_which_nothing_has_failed_is_known(cli: Cli):
    for name in ("training", "progress/cohort_stats"):
        done = cli("failures", "list", "--asset", name)
        assert (done.returncode, done.stderr) == (0, f"Nothing of {name!r} has failed.\n")


def test_an_asset_of_somebody_elses_code_is_known_by_its_failures(cli: Cli, conn):
    conn.execute(FAILED, ["gym/visits"])
    assert "gym/visits\tp\tu\tno" in cli("failures", "list", "--asset", "gym").stdout
    retried = cli("failures", "retry", "--asset", "gym/visits", "--yes")
    assert retried.returncode == 1
    assert "Failures of gym are tried again in the UI" in retried.stderr
    conn.execute("update backfill.failures set resolved_at = now()")
    assert cli("failures", "list", "--asset", "gym").returncode == 0
