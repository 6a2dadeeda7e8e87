"""This file is the one place where a test lets time pass: until a condition holds, or a deadline is over."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], bool], seconds: float = 60.0, every: float = 0.02, most: float = 0.0) -> bool:
    """Ask `holds` until it is true or `seconds` are over; return its last answer, to be asserted.

    Where asking is work for somebody, `most` lets the pause grow to a twentieth of what was waited, but to no more.
    """
    begun = time.monotonic()
    while not holds():
        waited = time.monotonic() - begun
        if waited > seconds:
            return holds()
        time.sleep(max(every, min(most, waited / 20)))
    return True
