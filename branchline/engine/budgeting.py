"""This file shares one machine between all steps that run: cores, memory and GPUs, given and given back.

A step that asks for more than there is at all is refused; one that asks for more than is free waits. Nothing is taken
by force: who takes more memory than it asked for is ended by its own supervisor.
"""

from __future__ import annotations

import glob
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from branchline.core.spec import Step
from branchline.errors import DoesNotFit


class Share(NamedTuple):
    """What a step is given by number: GPUs that are its own, and the processors that it may run on."""

    gpus: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()


@dataclass(slots=True)
class Budget:
    """What there is for steps: `cores`, `memory` in bytes, `gpus` and processors (`cpus`) by number."""

    cores: float
    memory: int
    gpus: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()
    _used: list[tuple[Step, Share]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def holds(self, step: Step) -> None:
        """Raise DoesNotFit when a step asks for more than there is at all."""
        asked = ((step.cores, self.cores, "cores"), (step.memory, self.memory, "bytes of memory"))
        for wanted, there, what in (*asked, (step.gpus, len(self.gpus), "GPUs")):
            if wanted > there:
                raise DoesNotFit(step=step.name, wanted=f"{wanted:g}", there=f"{there:g}", what=what)

    @contextmanager
    def given(self, step: Step, stopped: Callable[[], bool]) -> Iterator[Share]:
        """Give a step what it asks for, as soon as it is free, and take it back.

        Waits no longer when it is `stopped`: then whoever asked ends by itself.
        """
        with self._changed:
            while not self._fits(step) and not stopped():
                self._changed.wait(0.2)
            mine = step, self._share(step)
            self._used.append(mine)
        try:
            yield mine[1]
        finally:
            with self._changed:
                self._used.remove(mine)
                self._changed.notify_all()

    def _share(self, step: Step) -> Share:
        """GPUs that nobody has, and the processors that the fewest have: two steps on one would leave another idle."""
        taken = Counter(gpu for _, share in self._used for gpu in share.gpus)
        busy = Counter(cpu for _, share in self._used for cpu in share.cpus)
        gpus = tuple(gpu for gpu in self.gpus if gpu not in taken)[: step.gpus]
        return Share(gpus, tuple(sorted(self.cpus, key=busy.__getitem__)[: math.ceil(step.cores)]))

    def _fits(self, step: Step) -> bool:
        using = [step, *(each for each, _ in self._used)]
        memory, gpus = sum(each.memory for each in using), sum(each.gpus for each in using)
        return sum(each.cores for each in using) <= self.cores and memory <= self.memory and gpus <= len(self.gpus)


def machine() -> Budget:
    """What this machine has for steps: what this process may use, and the NVIDIA devices that there are."""
    devices = sorted(int(path.removeprefix("/dev/nvidia")) for path in glob.glob("/dev/nvidia[0-9]*"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpus = sorted(os.sched_getaffinity(0))
    return Budget(float(len(cpus)), memory, tuple(devices), tuple(cpus))
