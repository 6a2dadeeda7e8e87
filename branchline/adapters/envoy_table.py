"""This file says what the gateway's own memory (`table.json`) holds and how it changes; pure, no file is opened here.

Rules. A line of one arm is no experiment: it has neither salt nor hash. When it gets several arms a new experiment
begins, with a number that was never used before (the generation, at least), so every experiment draws other people;
while several arms stand the salt stays, and a share that grows moves nobody out. Under another holder of the trunk's
arm the experiment has another name after the same salt: nobody is moved, but what was seen is kept apart. Each change
of segments has a new table number, which is the service's own and never means other segments. Arms that leave while the
trunk's holder stays (their processes died, or everything was stopped) and come back find their experiment again, with
the same people. A revision with a share keeps its endpoints, whatever is offered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

from branchline.core.spec import Requests, Unit
from branchline.core.traffic import Table, left_to, reallocate, salt_of, shares_of, whole
from branchline.errors import Fenced, IllegalMove, Unserved
from branchline.ports import Endpoint, Shown, Stamp

Shares = tuple[tuple[str, int], ...]
NOTHING_TOLD = Stamp(0, 0)
SERVICES = 4096  # of which is remembered what was rendered or written


@dataclass(frozen=True, slots=True)
class Known:
    """An endpoint whose cluster the gateway has; only a warm one (healthy once) may be pinned or routed."""

    endpoint: Endpoint
    warm: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """Who gets which buckets in an experiment, and the number of that table."""

    table: int
    segments: Table
    experiment: str = ""


@dataclass(frozen=True, slots=True)
class Line(Split):
    """One line's split: the first of `shares` is the trunk's holder, `previous` who held it before ("" once back).

    `whole` is the split that was, with the arms that have left since; None when nobody has.
    """

    shares: Shares = ()
    number: int = 0
    previous: str = ""
    whole: Split | None = None

    @property
    def holder(self) -> str:
        """The revision that holds the trunk's arm, to which every other arm falls back."""
        return self.shares[0][0]

    @property
    def shown(self) -> Shown:
        """The line as the engine sees it."""
        return Shown(self.shares, self.table, self.segments, self.experiment)


@dataclass(frozen=True, slots=True)
class Routes:
    """What is known of one service; `tables` counts its bucket tables, `numbers` holds each line's last experiment."""

    told: Stamp = NOTHING_TOLD
    known: tuple[Known, ...] = ()
    lines: tuple[tuple[int, Line], ...] = ()
    tables: int = 0
    numbers: tuple[tuple[int, int], ...] = ()

    def line(self, number: int) -> Line | None:
        """One line; None when it has no route."""
        return dict(self.lines).get(number)

    @property
    def routed(self) -> frozenset[str]:
        """The revisions that have a share of any line."""
        return frozenset(arm for _, line in self.lines for arm, _ in line.shares)

    def group(self, revision: str) -> tuple[Endpoint, ...]:
        """The warm production endpoints of a revision, the newest first."""
        mine = [k.endpoint for k in self.known if k.warm and k.endpoint.split and k.endpoint.revision == revision]
        return tuple(reversed(mine))


@dataclass(frozen=True, slots=True)
class Gateway:
    """The whole memory: the port, how often it changed, and the services by name."""

    port: int = 0
    serial: int = 0
    services: Mapping[str, Routes] = field(default_factory=dict)

    def of(self, service: str) -> Routes:
        """What is known of a service; nothing at all is an empty Routes."""
        return self.services.get(service, Routes())

    def having(self, service: str, routes: Routes) -> Gateway:
        """The memory with one service changed."""
        return replace(self, serial=self.serial + 1, services={**self.services, service: routes})


def unfenced(routes: Routes, stamp: Stamp) -> None:
    """Raise Fenced for what was planned before the newest stamp told."""
    if stamp < routes.told:
        raise Fenced(f"planned from {tuple(stamp)}, told {tuple(routes.told)}")


def told(routes: Routes, stamp: Stamp) -> Routes:
    """Raise the high-water mark; an older stamp changes nothing."""
    return replace(routes, told=max(routes.told, stamp))


def announced(routes: Routes, endpoints: Sequence[Endpoint]) -> Routes:
    """Add what is new, cold: its cluster is rendered and checked, but no request can reach it yet."""
    named = {k.endpoint.nonce for k in routes.known}
    return replace(routes, known=(*routes.known, *(Known(e) for e in endpoints if e.nonce not in named)))


def offered(routes: Routes, endpoints: Sequence[Endpoint]) -> Routes:
    """Know exactly these endpoints, warm; one whose revision has a share stays until another of it is there."""
    wanted = {e.nonce for e in endpoints}
    served = {e.revision for e in endpoints if e.split}
    kept = [
        k
        for k in routes.known
        if k.endpoint.nonce not in wanted
        and (k.warm and k.endpoint.split)
        and k.endpoint.revision in routes.routed - served
    ]
    return replace(routes, known=(*kept, *(Known(e, warm=True) for e in endpoints)))


def without_cold(routes: Routes, endpoints: Sequence[Endpoint]) -> Routes:
    """Forget those of the endpoints that never became warm."""
    nonces = {e.nonce for e in endpoints}
    return replace(routes, known=tuple(k for k in routes.known if k.warm or k.endpoint.nonce not in nonces))


def shifted(routes: Routes, service: str, number: int, shares: Sequence[tuple[str, int]], generation: int) -> Routes:
    """Give a line these shares (() ends it); the same again change nothing. Raises ValueError if they do not sum."""
    before = routes.line(number)
    others = tuple((n, line) for n, line in routes.lines if n != number)
    wanted = tuple((arm, int(share)) for arm, share in shares if share)
    if not wanted:
        return replace(routes, lines=others)
    if before and before.shares == wanted:
        return routes
    holder = wanted[0][0]
    begun = _begun(before, holder, {arm for arm, _ in wanted}) or before
    segments = reallocate(begun.segments if begun else whole(holder), dict(wanted))
    experiment, numbers = _experiment(routes, service, number, begun, wanted, generation)
    same = next((s for s in (before, begun) if s and (s.segments, s.experiment) == (segments, experiment)), None)
    tables = routes.tables if same else routes.tables + 1
    line = Line(
        table=same.table if same else tables,
        segments=segments,
        experiment=experiment,
        shares=wanted,
        number=dict(numbers).get(number, 0),
        previous=_previous(before, holder),
        whole=_whole(before, wanted),
    )
    return replace(routes, lines=tuple(sorted((*others, (number, line)))), tables=tables, numbers=numbers)


def _begun(before: Line | None, holder: str, arms: Set[str]) -> Split | None:
    """The experiment that these arms return to: as it was, but for who has left it."""
    if before is None or before.whole is None or before.holder != holder or not arms <= _arms(before.whole):
        return None
    if left_to(before.whole.segments, _arms(before), holder) != before.segments:
        return None  # people were moved since
    segments = left_to(before.whole.segments, arms, holder)
    return before.whole if segments == before.whole.segments else replace(before.whole, table=0, segments=segments)


def _whole(before: Line | None, wanted: Shares) -> Split | None:
    """The split to remember while only the wanted arms are left of it."""
    if before is None or before.holder != wanted[0][0]:
        return None
    was = before.whole or (Split(before.table, before.segments, before.experiment) if before.experiment else None)
    return was if was and {arm for arm, _ in wanted} < _arms(was) else None


def _arms(split: Split) -> set[str]:
    return {arm for arm, _ in split.segments}


def _previous(before: Line | None, holder: str) -> str:
    """Who held the trunk's arm before this holder; whoever was left by going back to it is no way back."""
    if before is None or before.previous == holder:
        return ""
    return before.previous if before.holder == holder else before.holder


def _experiment(
    routes: Routes, service: str, number: int, begun: Split | None, wanted: Shares, generation: int
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The experiment of a line with these shares (its salt, perhaps a dot and since when), and the numbers so far."""
    if len(wanted) == 1:
        return "", routes.numbers
    if begun and begun.experiment:
        before = routes.line(number)
        same = before is not None and before.holder == wanted[0][0]
        return begun.experiment if same else f"{salt_of(begun.experiment)}.{generation}", routes.numbers
    used = dict(routes.numbers)
    used[number] = max(used.get(number, 0) + 1, generation)
    return f"{service}-{number}-{used[number]}", tuple(sorted(used.items()))


def way_back(routes: Routes, service: str, number: int, *, abort: bool, done: bool) -> tuple[Line, str]:
    """The line as it is and who gets all of it: the holder if there is a test, else (not to `abort`) the previous one.

    Raises Unserved when there is nobody; IllegalMove when that is because of what was `done` without the daemon.
    """
    now = routes.line(number)
    target = now and (now.holder if len(now.shares) > 1 else "" if abort else now.previous)
    if now and target:
        return now, target
    if done and not abort:
        why = "it is rolled back already; that stands in the gateway's journal, and the daemon records it"
        raise IllegalMove(why, event="a rollback", subject=f"{service} {number}.x", hint="branchline up")
    what = "nothing under test" if abort else "nothing to go back to"
    raise Unserved(f"{service} has {what}", address=f"{service}@v{number}")


def gaining(before: Line | None, shares: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """The arms that would get buckets, and the holder, to which everybody falls back: they have to be healthy."""
    held = shares_of(before.segments) if before else {}
    grows = [arm for arm, share in shares if share * 100 > held.get(arm, 0)]
    return tuple(dict.fromkeys([arm for arm, _ in shares[:1] if not before or before.holder != arm] + grows))


def to_json(gateway: Gateway) -> str:
    """The memory as JSON. One service changes at a time: what was written of the others is taken as it was."""
    services = ",".join(f"{json.dumps(name)}:{_text(routes)}" for name, routes in sorted(gateway.services.items()))
    return f'{{"port":{gateway.port},"serial":{gateway.serial},"services":{{{services}}}}}'


@lru_cache(maxsize=SERVICES)
def _text(routes: Routes) -> str:
    document = {
        "told": list(routes.told),
        "known": [_known_document(k) for k in routes.known],
        "lines": {str(n): asdict(line) for n, line in routes.lines},
        "tables": routes.tables,
        "numbers": [list(pair) for pair in routes.numbers],
    }
    return json.dumps(document, separators=(",", ":"))


@lru_cache(maxsize=SERVICES)
def _known_document(known: Known) -> Mapping[str, Any]:
    return {**asdict(known.endpoint), "warm": known.warm}


def from_json(document: Mapping[str, Any]) -> Gateway:
    """Read what `to_json` wrote, parsed."""
    return Gateway(
        document["port"],
        document["serial"],
        {name: _routes(routes) for name, routes in document["services"].items()},
    )


def _routes(document: Mapping[str, Any]) -> Routes:
    return Routes(
        told=Stamp(*document["told"]),
        known=tuple(_known(dict(k)) for k in document["known"]),
        lines=tuple(sorted((int(n), _line(line)) for n, line in document["lines"].items())),
        tables=document["tables"],
        numbers=tuple((line, used) for line, used in document["numbers"]),
    )


def _line(document: Mapping[str, Any]) -> Line:
    was = document.get("whole")
    split = Split(**{**was, "segments": _pairs(was["segments"])}) if was else None
    pairs = {name: _pairs(document[name]) for name in ("shares", "segments")}
    return Line(**{**document, **pairs, "whole": split})


def _known(document: dict[str, Any]) -> Known:
    warm = document.pop("warm")
    document |= {"sockets": tuple(document["sockets"]), "pins": tuple(document["pins"])}
    document |= {"unit": Unit(**document["unit"]), "requests": Requests(**document.get("requests", {}))}
    return Known(Endpoint(**document), warm)


def _pairs(rows: Sequence[Sequence[Any]]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), int(count)) for name, count in rows)
