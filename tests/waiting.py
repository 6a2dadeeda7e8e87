"""This file is the one place where a test lets time pass: until a condition holds, or a deadline is over."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], bool], seconds: float = 60.0, every: float = 0.02) -> bool:
    """Ask `holds` until it is true or `seconds` are over; return its last answer, to be asserted."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return holds()
        time.sleep(every)
    return True
