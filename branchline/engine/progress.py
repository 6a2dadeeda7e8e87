"""This file keeps what is being done right now, for people who watch: a bounded list of notes with numbers.

Notes are for eyes and never for decisions: after a restart the list is empty and nothing is lost but the telling.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from branchline.core.revision import GateResult
from branchline.errors import BranchlineError


@dataclass(frozen=True, slots=True)
class Note:
    """One line of progress: `mark` is ok, =, no, ..; `name` what it is about; `text` the rest of the line."""

    number: int
    service: str
    topic: str
    mark: str
    name: str
    text: str
    seconds: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Progress:
    """The notes of this daemon's life, newest kept. Who waits for one is given what comes in the `gather` seconds after
    it, too: a question for each of many short steps would cost more than the steps.
    """

    def __init__(self, keep: int = 5000, gather: float = 0.05) -> None:
        self._notes: deque[Note] = deque(maxlen=keep)
        self._gather = gather
        self._grown = threading.Condition()
        self._number = 0

    def note(
        self, service: str, topic: str, mark: str, name: str, text: str = "", seconds: float | None = None, **more: Any
    ) -> None:
        """Add a note; `topic` is what it belongs to: a branch, or the id of a run."""
        with self._grown:
            self._number += 1
            self._notes.append(Note(self._number, service, topic, mark, name, text, seconds, more))
            self._grown.notify_all()

    def refused(self, service: str, topic: str, gates: Iterable[GateResult]) -> None:
        """Tell gates that let nothing be begun."""
        for gate in gates:
            self.note(service, topic, "no", f"gate {gate.gate}", gate.summary)

    def failed(self, service: str, topic: str, name: str, error: BranchlineError) -> str:
        """Tell an error with the last lines of what failed and what to type next; returns it to record, in one line
        and the log.
        """
        reason = f"error[{error.code}]: {error.message}" + (f": {error.cause}" if error.cause else "")
        self.note(
            service, topic, "no", name, "\n".join(each for each in (reason, error.log, f"next: {error.next}") if each)
        )
        return "\n".join(each for each in (reason, error.log) if each)

    @property
    def number(self) -> int:
        """The number of the newest note."""
        with self._grown:
            return self._number

    def since(self, number: int, topic: str = "", wait: float = 0.0) -> tuple[Note, ...]:
        """The notes after a number, of one topic if it is named; waits up to so many seconds for the first. A note that
        is named `end` is told at once.
        """

        def fresh() -> list[Note]:
            newer = takewhile(lambda note: note.number > number, reversed(self._notes))
            return [note for note in newer if topic in ("", note.topic)][::-1]

        with self._grown:
            if wait and self._grown.wait_for(fresh, wait):
                self._grown.wait_for(lambda: any(note.name == "end" for note in fresh()), self._gather)
            return tuple(fresh())
