"""This file measures the demo: it plays the whole story as `make demo` does and prints its wall time by part.

The table is the one that the demo itself prints at its end. `--rounds 2` plays it twice: the first time may have to
fill caches (packages, bytecode), the second is warm. A demo that fails ends this, too, with its last lines.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time

PART = re.compile(r"^ +(\d+\.\d) s  (.+)$", re.MULTILINE)
WHOLE = "in all"
SECONDS = 900.0


def played() -> tuple[dict[str, float], float]:
    """Seconds by part, and what the whole took from outside."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begun = time.monotonic()
    command = (sys.executable, "-m", "branchline.cli.main", "demo")
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    took = time.monotonic() - begun
    if ended.returncode:
        raise SystemExit("\n".join([*(ended.stdout + ended.stderr).splitlines()[-20:], f"exit {ended.returncode}"]))
    return {title: float(seconds) for seconds, title in PART.findall(ended.stdout)}, took


def main() -> None:
    """Print a table for each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often to play it")
    rounds = parser.parse_args().rounds
    for number in range(rounds):
        parts, took = played()
        whole = parts.pop(WHOLE, took)
        if rounds > 1:
            print(f"round {number + 1}")
        for title, seconds in parts.items():
            print(f"{seconds:7.1f} s  {100 * seconds / took:3.0f} %  {title}")
        rest = whole - sum(parts.values())
        print(f"{rest:7.1f} s  {100 * rest / took:3.0f} %  the scratch repository, the daemon's start")
        print(f"{took - whole:7.1f} s  {100 * (took - whole) / took:3.0f} %  stopping everything")
        print(f"{took:7.1f} s         in all")


if __name__ == "__main__":
    main()
