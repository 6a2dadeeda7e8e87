"""This file prints what it costs a step to be recorded, on every Python found: files, folders, modules, calls.

Each row is one piece of work in a fork of its own, with the recorder and without it, taking turns; what counts is the
median of the rounds' ratios. Beside it stands what one operation costs more, in microseconds. The worst cases are
chosen: nothing but opening one small file, nothing but calling a function that does nothing. Run:
python bench/recording.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.stepping import Stepper, interpreters

ROUNDS = 9
MODULES = 200
WORK = """
import importlib, os, sys, time
from other import nothing
def timed(work):
    def run():
        begun = time.perf_counter()
        count = work()
        return (time.perf_counter() - begun) / count
    return run
@timed
def opening():
    for _ in range(20_000): open("small.txt").close()
    return 20_000
@timed
def outside():
    for _ in range(20_000): open("/dev/null").close()
    return 20_000
@timed
def asking():
    for _ in range(50_000): os.stat("small.txt")
    return 50_000
@timed
def listing():
    for _ in range(20_000): os.listdir("folder")
    return 20_000
@timed
def variables():
    for _ in range(100_000): os.environ.get("HOME")
    return 100_000
@timed
def importing():
    for number in range(%d): importlib.import_module(f"folder.m{number}")
    return %d
@timed
def calling():
    for _ in range(2_000_000): nothing()
    return 2_000_000
""" % (MODULES, MODULES)  # noqa: UP031 - braces are the text's own
ROWS = (
    ("opening", "open a file of the project"),
    ("outside", "open a file of the machine"),
    ("asking", "os.stat of a file of the project"),
    ("listing", "list a folder of one module more than 200"),
    ("variables", "read a variable that is set"),
    ("importing", "import a module outside of the closure"),
    ("calling", "call a function outside of the closure"),
)


def write(root: Path) -> None:
    """The project that works."""
    (root / "folder").mkdir()
    for number in range(MODULES):
        (root / f"folder/m{number}.py").write_text(f"def f{number}():\n    return {number}\n")
    (root / "folder/__init__.py").write_text("")
    (root / "small.txt").write_text("small")
    (root / "work.py").write_text(WORK)
    (root / "other.py").write_text("def nothing():\n    pass\n")


def main(arguments: list[str]) -> None:
    """Print a table for each interpreter."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args(arguments).rounds
    plan = {"imported": ["work", "other"], "covered": {"work": [name for name, _ in ROWS]}}
    for version, path in sorted(interpreters().items()):
        print(f"Python {version}{'':28}without     more     ratio")
        with tempfile.TemporaryDirectory() as root:
            write(Path(root))
            stepper = Stepper(path)
            for name, what in ROWS:
                taken = [
                    [float(stepper.run(Path(root), f"work:{name}", chosen)[0]) for chosen in (None, plan)]
                    for _ in range(rounds)
                ]
                plain = statistics.median(without for without, _ in taken) * 1e6
                more = statistics.median(recorded - without for without, recorded in taken) * 1e6
                ratio = statistics.median(recorded / without for without, recorded in taken)
                print(f"  {what:42} {plain:8.3f} µs {more:+8.3f} µs {ratio:6.2f} x")
            stepper.close()


if __name__ == "__main__":
    main(sys.argv[1:])
