"""This file says what the gateway's own memory (`table.json`) holds and how it changes; pure, no file is opened here.

Rules. A line of one arm is no experiment: it has neither salt nor hash. When it gets several arms a new experiment
begins, with a number that was never used before (the generation, at least), so every experiment draws other people;
while several arms stand the salt stays, and a share that grows moves nobody out. Each change of segments has a new
table number, which is the service's own and never used again. A revision with a share keeps its endpoints, whatever
is offered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from branchline.core.traffic import Table, reallocate, shares_of, whole
from branchline.errors import Fenced
from branchline.ports import Endpoint, Shown, Stamp

Shares = tuple[tuple[str, int], ...]
NOTHING_TOLD = Stamp(0, 0)


@dataclass(frozen=True, slots=True)
class Known:
    """An endpoint whose cluster the gateway has; only a warm one (healthy once) may be pinned or routed."""

    endpoint: Endpoint
    warm: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line's split: the first of `shares` is the trunk's holder, `previous` who held it before."""

    shares: Shares
    table: int
    segments: Table
    experiment: str = ""
    number: int = 0
    previous: str = ""

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
    segments = reallocate(before.segments if before else whole(holder), dict(wanted))
    experiment, numbers = _experiment(routes, service, number, wanted, generation)
    same = before is not None and (before.segments, before.experiment) == (segments, experiment)
    tables = routes.tables if same else routes.tables + 1
    line = Line(
        shares=wanted,
        table=tables,
        segments=segments,
        experiment=experiment,
        number=dict(numbers).get(number, 0),
        previous=_previous(before, holder),
    )
    return replace(routes, lines=tuple(sorted((*others, (number, line)))), tables=tables, numbers=numbers)


def _previous(before: Line | None, holder: str) -> str:
    """Who held the trunk's arm before this holder."""
    if before is None:
        return ""
    return before.previous if before.holder == holder else before.holder


def _experiment(
    routes: Routes, service: str, number: int, wanted: Shares, generation: int
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The salt of a line with these shares, and the numbers used so far."""
    before = routes.line(number)
    if len(wanted) == 1:
        return "", routes.numbers
    if before and before.experiment:
        return before.experiment, routes.numbers
    used = dict(routes.numbers)
    used[number] = max(used.get(number, 0) + 1, generation)
    return f"{service}-{number}-{used[number]}", tuple(sorted(used.items()))


def gaining(before: Line | None, shares: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """The arms that would get buckets, and the holder, to which everybody falls back: they have to be healthy."""
    held = shares_of(before.segments) if before else {}
    grows = [arm for arm, share in shares if share * 100 > held.get(arm, 0)]
    return tuple(dict.fromkeys([arm for arm, _ in shares[:1] if not before or before.holder != arm] + grows))


def to_json(gateway: Gateway) -> dict[str, Any]:
    """The memory as a JSON document."""
    return {
        "port": gateway.port,
        "serial": gateway.serial,
        "services": {
            name: {
                "told": list(routes.told),
                "known": [{**asdict(k.endpoint), "warm": k.warm} for k in routes.known],
                "lines": {str(n): asdict(line) for n, line in routes.lines},
                "tables": routes.tables,
                "numbers": [list(pair) for pair in routes.numbers],
            }
            for name, routes in sorted(gateway.services.items())
        },
    }


def from_json(document: Mapping[str, Any]) -> Gateway:
    """Read what `to_json` wrote."""
    return Gateway(
        document["port"],
        document["serial"],
        {name: _routes(routes) for name, routes in document["services"].items()},
    )


def _routes(document: Mapping[str, Any]) -> Routes:
    lines = {int(n): {**line, "shares": _pairs(line["shares"]), "segments": _pairs(line["segments"])}
             for n, line in document["lines"].items()}  # fmt: skip
    return Routes(
        told=Stamp(*document["told"]),
        known=tuple(_known(dict(k)) for k in document["known"]),
        lines=tuple(sorted((n, Line(**line)) for n, line in lines.items())),
        tables=document["tables"],
        numbers=tuple((line, used) for line, used in document["numbers"]),
    )


def _known(document: dict[str, Any]) -> Known:
    warm = document.pop("warm")
    document |= {"sockets": tuple(document["sockets"]), "pins": tuple(document["pins"])}
    return Known(Endpoint(**document), warm)


def _pairs(rows: Sequence[Sequence[Any]]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), int(count)) for name, count in rows)
