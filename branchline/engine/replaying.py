"""This file replays the history of a service by the law: every state that it was in, and its splits of the traffic.

A split is written down nowhere: it follows from the state in which its bucket table exposed its first unit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from branchline.core.lifecycle import move
from branchline.core.records import event_from_json
from branchline.core.service import Candidate, Service
from branchline.core.world import desired
from branchline.errors import IllegalMove, NothingToDo
from branchline.ports import Entry, Exposed, Ports

PAGE = 1000  # entries of the history that are read at once
History = Sequence[tuple[Entry, Service]]


def entries_of(ports: Ports, name: str) -> list[Entry]:
    """Every entry of a service's history, the oldest first."""
    entries: list[Entry] = []
    while page := ports.ledger.history(name, limit=PAGE, before=entries[-1].number if entries else 0):
        entries += page
    return entries[::-1]


def states(ports: Ports, name: str) -> list[tuple[Entry, Service]]:
    """Every entry of a service's history, the oldest first, with the state that it left.

    Raises NothingToDo where the law of now does not lead through what was recorded by another one.
    """
    state, found = Service(name, default=ports.ledger.service(name).default), []
    for entry in entries_of(ports, name):
        try:
            told = {key: value for key, value in entry.detail.items() if key != "left_behind"}
            state = move(state, event_from_json({"type": entry.event, **told}))
        except (KeyError, TypeError, ValueError, IllegalMove):
            if entry.event != "Restored":
                what = f"what {name} was at entry {entry.number} cannot be told any more"
                raise NothingToDo("another version has recorded it", what=what, hint="branchline history") from None
        state = replace(state, generation=entry.generation)
        found.append((entry, state))
    return found


def splits_of(
    history: History, rows: Sequence[Exposed], control: str, tried: Candidate
) -> dict[int, tuple[float, float]]:
    """What both arms were to get under each bucket table: as the law wanted it when the table exposed its first.

    Tables from before both had a share are not in it.
    """
    known = []
    for entry, state in history:
        shares = dict(dict(desired(state).routes).get(tried.line, ()))
        if control in shares and tried.revision in shares:
            known.append((entry.at, (float(shares[control]), float(shares[tried.revision]))))
    began: dict[int, float] = {}
    for each in rows:
        began[each.table] = min(began.get(each.table, each.began), each.began)
    moments = [at for at, _ in known]
    places = {table: bisect_right(moments, at) for table, at in began.items()}
    return {table: known[place - 1][1] for table, place in places.items() if place}
