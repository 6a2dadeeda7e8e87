"""This file measures how the work of a pass grows with the repository: 10 and 50 services that serve, 10,000 files.

Git is real, all else is a fake: what counts is how long it takes to look at everything when nothing has happened, how
long until a push to one service is recorded, and who is built by it. Run: python bench/repository.py [SERVICES ...]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.truths import Story
from tests.world import APP

FILES = 10_000
ROUNDS = 9


def monorepo(folder: Path, services: int) -> Story:
    """A story in which so many services serve, in a tree of many other files."""
    story = Story(folder)
    story.git.write("main", {f"data/{n % 100:02}/{n:05}.txt": f"{n}\n" for n in range(FILES)})
    for n in range(services):
        story.push(f"experiment--service-{n:02}--first", APP)
    story.settle()
    assert all(story.service(name).line(1).incumbent for name in story.ledger.services())
    return story


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def measured(story: Story) -> tuple[float, float, float, int]:
    """Median seconds of an idle look at git and of an idle round of everything, of a push until it is recorded, and
    how many services that push had built.
    """
    look = [seconds(story.controller.watch) for _ in range(ROUNDS)]
    idle = [seconds(story.round) for _ in range(ROUNDS)]
    noticed, built = [], set()
    for n in range(3):
        branch = f"experiment--service-0{n}--kim"
        story.push(branch)
        tasks = len(story.runner.tasks)
        noticed.append(seconds(story.controller.watch))
        story.settle()
        built.add(len({str(task.cwd).rpartition("/")[2] for task in story.runner.tasks[tasks:]}))
    return statistics.median(look), statistics.median(idle), statistics.median(noticed), max(built)


def main(sizes: list[int]) -> None:
    """Print the table and the growth."""
    print(f"{'services':>8} {'files':>8} {'idle look':>10} {'idle round':>11} {'push noticed':>13} {'built by it':>12}")
    found = []
    for services in sizes:
        with tempfile.TemporaryDirectory(prefix="branchline-bench-") as name:
            look, idle, noticed, built = measured(monorepo(Path(name), services))
        found.append((services, idle))
        told = f"{services:8} {FILES:8,} {1000 * look:7.0f} ms {1000 * idle:8.0f} ms {1000 * noticed:10.0f} ms"
        print(f"{told} {built:12}", flush=True)
    (few, before), (many, after) = found[0], found[-1]
    print(f"{many / few:.0f} times the services: {after / before:.1f} times the round")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [10, 50])
