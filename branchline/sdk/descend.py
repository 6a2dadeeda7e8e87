"""This file lets worker processes record what they meet, as the step does that started them.

multiprocessing (spawn, forkserver) and loky start an interpreter by a function that no audit event tells of. Rules. The
command line of such a worker gets a beginning, and the process two descriptors more: where to tell, and the plan.
Nothing is put into the environment, which is the step's own. What is started through `subprocess` is audited: it is
told as a child, and left as it is. multiprocessing's resource tracker runs nothing of the step.
"""

from __future__ import annotations

import _posixsubprocess
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from branchline.sdk.facts import HERE, module_of


def descend(told: int, plan: Mapping[str, Any], stranger: Callable[[list[str]], None]) -> None:
    """Let the Python workers of this process record too; any other program is told to `stranger`, by its words."""
    plain = _posixsubprocess.fork_exec

    @functools.wraps(plain)
    def fork_exec(argv: Any, programs: Any, close: Any, keep: Any, *rest: Any) -> Any:
        words = [os.fsdecode(word) for word in argv]
        if module_of(sys._getframe(1)) == "subprocess" or any("resource_tracker" in word for word in words):
            return plain(argv, programs, close, keep, *rest)  # audited, or runs nothing of the step
        copy = written(plan)
        first = f"import sys; sys.path.insert(0, {os.path.dirname(HERE)!r}); from branchline.sdk import record"
        first += f"; del sys.path[0]; record.resume({told}, {copy})"
        more = carried(words, first) if os.fsdecode(programs[0]) == sys.executable else None
        if more is None:
            os.close(copy)
            stranger(words)
            return plain(argv, programs, close, keep, *rest)
        kept = tuple(sorted({*map(int, keep), told, copy}))
        try:
            return plain([os.fsencode(word) for word in more], programs, close, kept, *rest)
        finally:
            os.close(copy)

    _posixsubprocess.fork_exec = fork_exec


def written(plan: Mapping[str, Any]) -> int:
    """A descriptor to read a plan from."""
    copy = os.memfd_create("plan")
    with open(copy, "wb", closefd=False) as file:
        file.write(json.dumps(dict(plan)).encode())
    return copy


def carried(argv: Sequence[str], first: str) -> list[str] | None:
    """The command line of a Python process that runs `first` before its own; None when it is given a file to run."""
    words = iter(range(1, len(argv)))
    for at in words:
        if argv[at] in ("-c", "-m") and at + 1 < len(argv):
            own = argv[at + 1]
            if argv[at] == "-m":
                own = f"import runpy; runpy.run_module({own!r}, run_name='__main__', alter_sys=True)"
            return [*argv[:at], "-c", f"{first}; {own}", *argv[at + 2 :]]
        if not argv[at].startswith("-"):
            return None
        if argv[at] in ("-X", "-W"):
            next(words, None)
    return None
