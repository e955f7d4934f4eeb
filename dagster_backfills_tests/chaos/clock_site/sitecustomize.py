"""Loaded by Python processes that use libfaketime's clock (`clock.py`): a sleep that libfaketime does not alter.

libfaketime treats the absolute times of Python's sleep as real time, but they are monotonic, and the sleep fails. All
other waits are unchanged.
"""

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = _sleep
