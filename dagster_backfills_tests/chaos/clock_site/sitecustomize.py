"""Loaded by Python processes whose clock is libfaketime's (`clock.py`): a sleep that it leaves alone.

libfaketime reckons with absolute times where Python's sleep means the monotonic clock's, and the sleep is refused. All
other waits are left as they are.
"""

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = _sleep
