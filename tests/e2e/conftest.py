"""This file gives the end-to-end tests a repository with a running daemon.

`shell` is one for a module, in whose tests each has a service of its own; `own` is one for a test that breaks what it
is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.typed import Shell

HERE = Path(__file__).parent

# What takes minutes. Whichever of them begins last is what everybody waits for.
LONGEST = (
    "test_the_whole_story_is_what_the_ledger_and_git_say",
    "test_a_page_does_what_it_says[guides/your-project.md]",
    "test_conclusions_end_once_however_often_the_daemon_is_killed",
    "test_when_one_of_several_wins_the_others_stay_where_they_are",
)


LEAST = 1200.0  # seconds until a test is ended as one that hangs: four at once on two slow cores are no hang


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each worker begin with one of the longest: each is given an equal part of all, in this order.

    None of these tests is ended before `LEAST`: what they wait for has a deadline of its own, and says what it was.
    """
    for item in items:
        known = item.get_closest_marker("timeout")
        if item.path.is_relative_to(HERE) and (known is None or known.args[0] < LEAST):
            item.add_marker(pytest.mark.timeout(LEAST), append=False)
    workers = getattr(config, "workerinput", {}).get("workercount", 0)
    named = {item.name: item for item in items}
    first = [named[name] for name in LONGEST if name in named][:workers]
    items[:] = [item for item in items if item not in first]
    begin, end = 0, len(items) + len(first)
    for number, item in enumerate(first):
        items.insert(begin, item)
        begin += (end - begin) // (workers - number)


@contextmanager
def stopped_at_the_end(folder: Path, environ: dict[str, str]) -> Iterator[Shell]:
    """A person's shell; everything that runs is stopped at the end."""
    made = Shell(folder, environ=environ)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell whose daemon runs, with what the module's ENVIRON adds to the environment."""
    environ = getattr(request.module, "ENVIRON", {})
    with stopped_at_the_end(tmp_path_factory.mktemp("repo"), environ) as made:
        made.type("up")
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Shell]:
    """A shell for one test; nothing runs yet, and nothing of a service comes from afar."""
    with stopped_at_the_end(tmp_path, {"UV_OFFLINE": "1"}) as made:
        yield made
