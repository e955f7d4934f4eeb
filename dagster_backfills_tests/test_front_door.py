"""The package's public names, each loaded on first use."""

import json
import subprocess
import sys

import pytest

import dagster_backfills
from dagster_backfills import JobContext, JobError, PermanentJobError, PostgresBackfill, job_type
from dagster_backfills.components import postgres_backfill
from dagster_backfills.domains.queue import context, errors, registry

_LOADED = """
import json, sys
import dagster_backfills
before = [name for name in sys.modules if name.startswith(("dagster", "pydantic"))]
from dagster_backfills import JobContext, job_type
print(json.dumps([before, "dagster" in sys.modules]))
"""


def test_public_names_are_the_same_objects_as_in_their_modules() -> None:
    assert PostgresBackfill is postgres_backfill.PostgresBackfill
    assert (JobContext, job_type) == (context.JobContext, registry.job_type)
    assert (JobError, PermanentJobError) == (errors.JobError, errors.PermanentJobError)
    assert set(dagster_backfills.__all__) <= set(dir(dagster_backfills))
    assert all(hasattr(dagster_backfills, name) for name in dagster_backfills.__all__)
    assert not hasattr(dagster_backfills, "postgres_backfil")


@pytest.mark.programs
def test_each_name_is_loaded_on_first_use() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True)
    before, dagster_came_with_a_job_type = json.loads(done.stdout)
    assert before == ["dagster_backfills"]
    assert not dagster_came_with_a_job_type
