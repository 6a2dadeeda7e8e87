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
