"""This file reports outcomes from inside a service: a call costs microseconds, and nothing of it ever fails or waits.

    outcomes = Reporter("housing")  # once, as a module is imported: nothing begins before the first report
    outcomes.report(answer.headers["x-request-id"], 184_000)

Rules:

- `report` puts an outcome into a buffer and returns. A thread of this process sends what is there, in batches, again
  and again until it is answered: an outcome is known by its id, or by what it is about, and counts once (`report`).
- The buffer is bounded. What finds it full, what is wrong in itself and what the gateway refuses is dropped; how many
  and why is in `counts`, and told on standard error, once a minute at most.
- As the process ends, what is left is sent within `END_SECONDS`. A signal that nobody handles ends it at once, and so
  do `os._exit`, multiprocessing and a server of yours under uvicorn, which ends itself by the signal that it got:
  call `flush` before that. What Branchline serves by `predict` does.
- Any thread may report, and a signal handler may. A fork begins with an empty buffer: what was in it is its parent's.
"""

from __future__ import annotations

import atexit
import encodings.idna  # noqa: F401 - a connection imports it: who was forked amid that could never connect
import json
import math
import os
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from http.client import HTTPException
from queue import Empty, SimpleQueue
from typing import Any, SupportsFloat
from weakref import WeakSet

from branchline.sdk import report

ROOM = 10_000  # outcomes
BATCH = 1000
GATHER_SECONDS = 0.1  # from the first of a batch until it is sent, if it is not full before
PAUSES = (0.1, 5.0)  # seconds between two tries: the first, and the longest
END_SECONDS = 2.0
TELL_SECONDS = 60.0
LONGEST = {"request_id": 128, "unit": 512, "id": 128, "metric": 128}  # characters that the gateway takes
TRANSIENT = (408, 425, 429)
REASONS = 20  # why something was dropped: so many are told apart

Outcome = dict[str, Any]
_all: WeakSet[Reporter] = WeakSet()


class Reporter:
    """Reports outcomes of one service; `room` is how many may wait, `gateway` an address (default: BRANCHLINE_GATEWAY).

    It lives as long as the process: make one for a service, not one for a request.
    """

    def __init__(self, service: str, *, gateway: str = "", room: int = ROOM) -> None:
        self.service, self.gateway, self.room = service, gateway, room
        self._begin()
        _all.add(self)

    def report(
        self, request_id: str, value: SupportsFloat, *, unit: str = "", id: str = "", metric: str = "",
        of: SupportsFloat | None = None, before: SupportsFloat | None = None,
    ) -> bool:  # fmt: skip
        """Take the outcome of a request ('': of a unit) to be sent; says whether it was. Never waits, never raises.

        `value` is the metric's or, for kind error, the truth. `id` is a name of the outcome's own where there may be
        several of one. `metric` names what was measured; an outcome of a metric that nobody declared is not counted.
        `of` is what the value is a part of, for kind ratio; `before` what the unit was like before its first request.
        """
        try:
            numbers = {name: each for name, each in (("of", of), ("before", before)) if each is not None}
            named = {"request_id": request_id, "unit": unit, "id": id, "metric": metric}
            outcome = checked({"value": value, **numbers}, named)
            with self._changed:
                if self._taken - self._done >= self.room:
                    self._drop(f"{self.room} were waiting")
                    return False
                self._start()
                self._taken += 1
            self._queue.put(outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, the service that reports goes on
            self._drop(str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}")
            return False
        return True

    def flush(self, seconds: float = END_SECONDS) -> bool:
        """Send now what was reported until now; says whether all of it was answered, or dropped, in that time."""
        with self._changed:
            wanted = self._taken
            self._queue.put(None)
            self._hurry += 1
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._done >= wanted, seconds)
            self._hurry -= 1
        return done

    def counts(self) -> dict[str, int]:
        """What became of all that was reported by this process: the gateway's words, and `waiting` and `dropped`."""
        with self._changed:
            return {**self._words, "waiting": self._taken - self._done, "dropped": self._dropped.total()}

    def end(self, seconds: float = END_SECONDS) -> None:
        """Flush, and tell what was dropped or is lost."""
        self.flush(seconds)
        self._tell(0.0, ended=True)

    # ---- in whichever thread

    def _begin(self) -> None:
        """Have nothing and no thread; after a fork, too, where a lock may be held by a thread that is not here."""
        self._queue: SimpleQueue[Outcome | None] = SimpleQueue()  # None: somebody waits for what is before it
        self._changed = threading.Condition()
        self._words: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._taken = self._done = self._hurry = 0
        self._trouble = ""
        self._next_told = 0.0
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        """Have a thread that sends; raises RuntimeError where there can be no more."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_all, name=f"outcomes of {self.service}", daemon=True)
            try:
                self._thread.start()
            except BaseException:
                self._thread = None
                raise

    def _drop(self, why: str, count: int = 1) -> None:
        with self._changed:
            known = why in self._dropped or len(self._dropped) < REASONS
            self._dropped[why[:200] if known else "for other reasons"] += count

    # ---- in the thread that sends

    def _send_all(self) -> None:
        while True:
            batch = self._batch()
            try:
                self._send(batch)
            except Exception as error:  # noqa: BLE001 - one batch is lost, and told; the next one is sent
                self._drop(f"{type(error).__name__}: {error}", len(batch))
            with self._changed:
                self._done += len(batch)
                self._changed.notify_all()
            self._tell(TELL_SECONDS)

    def _batch(self) -> list[Outcome]:
        """What is to be sent next: what comes within a moment of the first, or until somebody wants it sent."""
        first = self._queue.get()
        if first is None:
            return []
        batch, end = [first], time.monotonic() + GATHER_SECONDS
        while len(batch) < BATCH:
            try:
                found = self._queue.get(timeout=0 if self._hurry else max(0.0, end - time.monotonic()))
            except Empty:
                break
            if found is not None:
                batch.append(found)
        return batch

    def _send(self, batch: list[Outcome]) -> None:
        """Send until there is an answer; of a batch that is refused, each half by itself, so that the rest is kept."""
        pause, longest = PAUSES
        while batch:
            address = self.gateway or os.environ.get(report.GATEWAY, "")
            if not address:
                self._drop(f"no gateway is known: {report.GATEWAY} is not set", len(batch))
                return
            try:
                status, answer = report.post(address, f"/{self.service}/-/outcomes", json.dumps(batch).encode())
            except (OSError, HTTPException) as error:
                self._trouble = f"{address} cannot be reached: {error}"
            else:
                told = f"{status}: {answer.get('detail') or answer.get('title') or 'refused'}"
                self._trouble = f"{address} answers {told}"
                if status < 500 and status not in TRANSIENT:
                    self._trouble = ""
                    self._answered(batch, status, answer, told)
                    return
            self._tell(TELL_SECONDS)
            with self._changed:
                self._changed.wait(pause)  # or until somebody wants it sent now
            pause = min(2 * pause, longest)

    def _answered(self, batch: list[Outcome], status: int, answer: dict[str, Any], told: str) -> None:
        if "outcomes" in answer:
            with self._changed:
                self._words.update(answer["outcomes"])
        elif status in (413, 422) and len(batch) > 1:
            self._send(batch[: len(batch) // 2])
            self._send(batch[len(batch) // 2 :])
        else:
            self._drop(told, len(batch))

    def _tell(self, least: float, ended: bool = False) -> None:
        """Tell of what was dropped since it was told last, and, at the end, of what was not sent."""
        with self._changed:
            fresh, lost = self._dropped - self._told, self._taken - self._done if ended else 0
            if not (fresh or lost) or (least and time.monotonic() < self._next_told):
                return
            self._told += fresh
            self._next_told = time.monotonic() + least
            trouble = f"; {self._trouble}" if self._trouble else ""
        parts = [f"{count} dropped ({why})" for why, count in fresh.most_common(5)]
        parts += [f"{lost} not sent in time"] if lost else []
        line = f"branchline: outcomes of {self.service}: {', '.join(parts)}{trouble}\n"
        with suppress(OSError, ValueError, AttributeError):  # standard error is gone
            # Past its buffer: an interpreter that finds the buffer's lock held by this thread as it ends, aborts.
            os.write(sys.stderr.fileno(), line.encode(errors="replace"))


class Wrong(ValueError):
    """An outcome that the gateway would refuse."""


def checked(numbers: dict[str, SupportsFloat], named: dict[str, str]) -> Outcome:
    """The outcome as it is sent; raises Wrong where one such would have its whole batch refused."""
    outcome: Outcome = {}
    for name, value in numbers.items():
        what = "a value" if name == "value" else f"`{name}`"
        if isinstance(value, str | bytes) or type(value).__name__ in ("bool", "bool_"):
            raise Wrong(f"{what} is a number, not a {type(value).__name__}")
        outcome[name] = float(value)
        if not math.isfinite(outcome[name]):
            raise Wrong(f"{what} was not finite")
    for name, text in named.items():
        try:
            if len(text) > LONGEST[name] or (text and not text.encode()):
                raise Wrong(f"{name} has more than {LONGEST[name]} characters")
        except (AttributeError, TypeError, UnicodeEncodeError):
            raise Wrong(f"{name} is no text") from None
        if text:
            outcome[name] = text
    if not (named["request_id"] or named["unit"]):
        raise Wrong("it names neither a request nor a unit")
    return outcome


def flush_all(seconds: float = END_SECONDS) -> None:
    """Send now what every reporter of this process has; in all at most so long."""
    end = time.monotonic() + seconds
    for each in list(_all):
        each.end(max(0.0, end - time.monotonic()))


def _in_fork() -> None:
    for each in list(_all):
        each._begin()


atexit.register(flush_all)
os.register_at_fork(after_in_child=_in_fork)
