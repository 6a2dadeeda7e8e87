"""This file tests the reading of uv's words: one line with the package named, and the right cure (F26)."""

from __future__ import annotations

import pytest

from branchline.adapters.uv_failures import Cure, Failure, understood, yanked

# What uv 0.13 prints; the same with a real uv and an index of our own is in tests/integration/test_uv_locks.py.
BUILD = """\
error: Failed to build `slow==1.0`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta.build_wheel` failed (exit status: 1)
"""
UNREACHED = """\
error: Failed to fetch: https://index.example/simple/plain/
  cause: error sending request for url (https://index.example/simple/plain/)
  cause: client error (Connect)
  cause: Connection refused (os error 111)
"""
SOLVING = """\
error: No solution found when resolving dependencies
  cause: Because {}, we can conclude that your requirements are unsatisfiable.
"""
OTHER = """\
Using Python 3.11.7 environment at: v
error: The interpreter is externally managed
  cause: it says so
  cause: in a file
  cause: that nobody reads

hint: do something else
"""


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (BUILD, Failure("slow==1.0 has no wheel for this Python, and building it failed", Cure.WHEEL, "slow")),
        (UNREACHED, Failure(
            "plain cannot be fetched from https://index.example/simple/plain/: Connection refused (os error 111)",
            Cure.AGAIN, "plain")),
        ("warning: `plain==1.0` is yanked", Failure(
            "plain==1.0 was yanked by those who published it: no reason given", Cure.UPGRADE, "plain")),
        (SOLVING.format("plain==1.0 has no wheels with a matching ABI tag (e.g., `cp311`) and you require plain==1.0"),
         Failure("plain==1.0 has no wheels with a matching ABI tag (e.g., `cp311`)", Cure.UPGRADE, "plain")),
        (SOLVING.format("you require plain==1.0 and plain==2.0"), Failure(
            "the lock cannot be met: you require plain==1.0 and plain==2.0", Cure.RELOCK)),
        (OTHER, Failure("The interpreter is externally managed: it says so: in a file", Cure.RELOCK)),
        ("thread 'main' panicked\nat src/main.rs\n", Failure("at src/main.rs", Cure.RELOCK)),
        ("", Failure("uv said nothing", Cure.RELOCK)),
    ],
)  # fmt: skip
def test_what_uv_says_becomes_a_line(text: str, failure: Failure) -> None:
    assert understood(text) == failure


def test_only_a_warning_of_yanking_counts() -> None:
    assert yanked('warning: `plain==1.0` is yanked (reason: "broken")')
    assert not yanked(" + yanked==1.0")
