"""This file puts questions to other people's systems, each in a thread of its own.

Such a system may hang: nothing else waits for it, it is not asked twice at once, and a person is told after a while.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from branchline.core.codes import understood
from branchline.engine.recording import Recorder
from branchline.errors import BranchlineError
from branchline.ports import Ports

SLOW = 30.0  # seconds after which a person is told that there is no answer
Key = tuple[str, str]  # service, and what is asked: where its trouble is told
Act = Callable[[], None]  # raises what is wrong


def in_thread(act: Callable[[], None]) -> None:
    """Do something in a thread that the daemon does not wait for at its end."""
    threading.Thread(target=act, name="fetch", daemon=True).start()


@dataclass(slots=True)
class Turn:
    """When a question is put next, and was put last (monotonic seconds)."""

    again: float = -math.inf
    begun: float = 0.0
    busy: bool = False


@dataclass(slots=True)
class Fetching:
    """Puts questions beside the loops. `of(service)` has those of one service, each with how many seconds it is put
    after its last answer; `late(seconds)` is told of one that is not answered for so long.
    """

    ports: Ports
    recorder: Recorder
    troubles: dict[tuple[str, str], str]
    what: str  # by which its trouble with a service is known
    of: Callable[[str], Iterator[tuple[Key, tuple[float, Act]]]]
    late: Callable[[float], BranchlineError]
    spawn: Callable[[Callable[[], None]], None] = in_thread
    turns: dict[Key, Turn] = field(default_factory=dict)

    def look(self) -> bool:
        """Put every question whose time has come; says whether any was."""
        wanted: dict[Key, tuple[float, Act]] = {}
        for name in self.ports.ledger.services():
            if name in self.recorder.older:
                continue
            try:
                wanted |= self.of(name)
                self.troubles.pop((name, self.what), None)
            except BranchlineError as error:  # one service stops no other (I24)
                self.troubles[name, self.what] = sentence(error)
        for key in self.turns.keys() - wanted.keys():
            if not self.turns[key].busy:
                del self.turns[key]
                self.troubles.pop(key, None)
        now, begun = self.ports.clock.monotonic(), False
        for key, (every, act) in wanted.items():
            turn = self.turns.setdefault(key, Turn())
            if turn.busy and now - turn.begun >= SLOW:
                self.troubles[key] = sentence(self.late(now - turn.begun))
            elif not turn.busy and now >= turn.again:
                turn.busy, turn.begun, begun = True, now, True
                self.spawn(partial(self._ask, key, every, act, turn))
        return begun

    def _ask(self, key: Key, every: float, act: Act, turn: Turn) -> None:
        try:
            act()
            self.troubles.pop(key, None)
        except Exception as error:  # noqa: BLE001 - one system's surprise stops nothing else, and is told (I24)
            self.troubles[key] = sentence(understood(error))
        turn.again = self.ports.clock.monotonic() + every
        turn.busy = False


def sentence(error: BranchlineError) -> str:
    """An error as `status` tells it."""
    return f"{error.code}: {error.message}" + (f": {error.cause}" if error.cause else "")
