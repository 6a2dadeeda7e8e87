"""This file fakes the Runner port: commands that are functions, a service's worker included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from branchline.ports import Finished, Task
from branchline.sdk import shim
from tests.waiting import wait_until

Act = Callable[[Task], Finished]
Call = Callable[[dict[str, Any]], Any]


class FakeRunner:
    """The Runner port.

    `commands` maps a program's name, or its module after `-m`, to what it does; a program that is not there ends with
    127. `calls` maps `module:function` to what a step or gate does with its order: it returns the value (which becomes
    `value.json`) or raises; what is not there returns its own name. A call in `endless` ends only when it is stopped,
    and then is in `ended`. Every task is in `tasks`.
    """

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.calls: dict[str, Call] = {}
        self.endless: set[str] = set()
        self.ended: list[str] = []
        self.commands: dict[str, Act] = {
            "true": lambda task: Finished(0, 0.01),
            "false": lambda task: Finished(1, 0.01),
            "echo": lambda task: printed(task, " ".join(task.argv[1:])),
            "touch": touched,
            "cat": lambda task: printed(task, task.stdin.rstrip("\n")),
        }

    def run(self, task: Task, stopped: Callable[[], bool] = lambda: False) -> Finished:
        """Do what the command does; `sleep` runs until it is stopped or its time is over."""
        self.tasks.append(task)
        name = task.argv[task.argv.index("-m") + 1] if "-m" in task.argv else Path(task.argv[0]).name
        if name == "sleep":
            if stopped():
                return Finished(143, 0.1)
            return Finished(0, float(task.argv[1])) if float(task.argv[1]) <= task.seconds else ran_out(task)
        if endless := [call for call in self.endless if call in task.stdin]:
            self.ended += endless if wait_until(stopped) else []
            return Finished(143, 0.1)
        if name not in self.commands:
            return printed(task, f"branchline: cannot run {name}: No such file or directory", 127)
        before = {path: shim.marks(str(path)) for path in task.inputs}
        finished = self.commands[name](task)
        stopped()
        changed = [shim.difference(marks, shim.marks(str(path))) for path, marks in before.items()]
        return replace(finished, changed=tuple(Path(path) for path in changed if path))


def printed(task: Task, text: str, exit: int = 0) -> Finished:
    """End with something in the log."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    return Finished(exit, 0.01, tail="\n".join(text.splitlines()[-20:]))


def touched(task: Task) -> Finished:
    """Make the files that are named."""
    for name in task.argv[1:]:
        Path(name).touch()
    return Finished(0, 0.01)


def ran_out(task: Task) -> Finished:
    """End because its time was over."""
    return Finished(143, task.seconds, timed_out=True)
