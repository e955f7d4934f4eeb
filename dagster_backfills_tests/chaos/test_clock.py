"""The clock that a storm sets jumps in running processes, and does not change how long they wait."""

import os
import subprocess
import sys

import pytest

from dagster_backfills_tests.chaos import clock
from dagster_backfills_tests.chaos.clock import Clock

pytestmark = pytest.mark.programs

PROGRAM = """
import sys, threading, time
for wait in (time.sleep, threading.Event().wait):
    began = time.time(), time.monotonic()
    sys.stdout.write("waits\\n")
    sys.stdout.flush()
    wait(2.5)
    sys.stdout.write(f"{time.time() - began[0]} {time.monotonic() - began[1]}\\n")
    sys.stdout.flush()
"""


@pytest.mark.skipif(clock.LIBRARY is None, reason="libfaketime is not installed (Debian's package faketime)")
def test_a_clock_jumps_in_running_processes_and_waits_keep_their_duration(tmp_path):
    made = Clock(tmp_path / "clock")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **made.environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for offset, jump in ((86_400, 86_400), (-600, -87_000)):
            assert process.stdout.readline() == "waits\n"
            made.set(offset)
            passed, waited = map(float, process.stdout.readline().split())
            assert passed - waited == pytest.approx(jump, abs=0.1)
            assert waited >= 2.4
    clock.remove_remains()
