"""This file hangs and kills what stands behind a real gateway under load: it heals with nobody to tell it (F66, I8)."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from branchline.core.spec import Requests
from branchline.ports import Stamp
from tests.calls import Called
from tests.gateways import ONE, Gateway, gateway
from tests.upstreams import Process, Upstream
from tests.waiting import wait_until

A, B = "a" * 40, "b" * 40
LONG = 60.0  # seconds that a request may take: nobody who is let go of soon ever waits for half of that
TWICE = Requests(timeout=LONG, idempotent=True, try_timeout=1.0)
ONCE = Requests(timeout=10.0)
MOMENT = 1.5  # seconds that an incumbent is waited for, and some: a look takes one, and two have to fail
CUT = -1
STRICT = "housing@1.1.0~n002!"


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


@dataclass(frozen=True)
class Asked:
    """One request of a crowd: when it was begun, how long it took, and what came of it."""

    begun: float
    took: float
    status: int
    version: str


@dataclass
class Crowd:
    """Clients that ask one after the other, each with ever new units."""

    found: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self, address: str, name: int) -> None:
        """Be one client until it is over."""
        where, number = urlsplit(address), 0
        with closing(http.client.HTTPConnection(str(where.hostname), where.port, timeout=2 * LONG)) as connection:
            while not self.over.is_set():
                begun, number = time.monotonic(), number + 1
                unit = {"x-branchline-unit": f"user-{name}-{number}"}
                connection.request("POST", "/housing/", body=b"{}", headers=unit)
                answer = connection.getresponse()
                status, version = answer.status, answer.headers.get("x-branchline-revision", "")
                try:
                    answer.read()
                except http.client.IncompleteRead:
                    status = CUT
                    connection.close()
                self.found.append(Asked(begun, time.monotonic() - begun, status, version))

    def more(self, count: int) -> None:
        """Wait until so many were answered that are begun from now on."""
        now = time.monotonic()
        assert wait_until(lambda: len(self.after(now)) > count)

    def after(self, moment: float) -> list[Asked]:
        """What was begun later."""
        return [each for each in self.found if each.begun > moment]


@contextmanager
def crowd(real: Gateway, clients: int = 20) -> Iterator[Crowd]:
    """So many clients, until the block is left and all of them have their last answer."""
    made, address = Crowd(), real.writer.address("housing")
    threads = [threading.Thread(target=made.ask, args=(address, name)) for name in range(clients)]
    for thread in threads:
        thread.start()
    try:
        assert wait_until(lambda: len(made.found) > 200)
        yield made
    finally:
        made.over.set()
        for thread in threads:
            thread.join()


def pair(real: Gateway, asked: Requests, kind: type[Upstream] = Upstream) -> tuple[Process, Process]:
    """An incumbent and a challenger with half of the traffic each, in processes of their own."""
    one = real.backyard.process(A, "1.0.0", kind, asked=asked, delay=0.01)
    other = real.backyard.process(B, "1.1.0", kind, asked=asked, delay=0.01)
    real.serve((one.upstream, 50), (other.upstream, 50))
    return one, other


def found_out(real: Gateway) -> bool:
    """Whether the gateway knows that the challenger hangs."""
    return not real.writer.envoy.healthy()[STRICT]


def test_a_hung_challenger_costs_no_request_that_may_be_asked_twice_F66(real: Gateway) -> None:
    """Killers: no strict cluster; no per-try time-out; no retry of what was begun."""
    _, other = pair(real, TWICE)
    with crowd(real) as clients:
        other.hang()
        assert wait_until(lambda: found_out(real))
        known = time.monotonic()
        assert wait_until(lambda: len(clients.after(known + 1.0)) > 200)
    assert Counter(each.status for each in clients.found) == {200: len(clients.found)}
    assert max(each.took for each in clients.found) < LONG / 2, "a second, and what a busy machine adds"
    assert {each.version for each in clients.after(known)} == {"housing@1.0.0"}
    log = real.logged(len(clients.found))
    stepped_in = [each for each in log if each.assigned == B and each.answered == A]
    assert len(stepped_in) > 80
    assert all(each.bad for each in stepped_in)
    other.go_on()
    assert wait_until(lambda: {each.revision for each in real.units(40).values()} == {A, B})


def test_a_hung_challenger_costs_only_what_was_with_it_F66(real: Gateway) -> None:
    """What may be asked once waits for its time; what comes after the gateway knows meets the incumbent."""
    _, other = pair(real, ONCE)
    with crowd(real) as clients:
        other.hang()
        assert wait_until(lambda: found_out(real))
        known = time.monotonic()
        assert wait_until(lambda: len(clients.after(known)) > 200)
    later = clients.after(known)
    assert Counter(each.status for each in later) == {200: len(later)}
    lost = [each for each in clients.found if each.status != 200]
    assert 0 < len(lost) <= 20, "at most one for each client"
    assert known < min(each.begun + each.took for each in lost), "it knew before the first of them was given up"
    assert {each.status for each in lost} == {504}


def test_a_hung_challenger_of_http2_lets_go_of_what_was_with_it(real: Gateway) -> None:
    """It can be asked while it computes, so nobody waits for the time to be over. Killer: no keep-alive."""
    _, other = pair(real, Requests(protocol="http2", timeout=LONG), Called)
    with crowd(real) as clients:
        other.hang()
        assert wait_until(lambda: found_out(real))
        known = time.monotonic()
        assert wait_until(lambda: len(clients.after(known + 1.0)) > 200)
    assert max(each.took for each in clients.found) < LONG / 2
    assert {200, 503} <= {each.status for each in clients.found} <= {200, 503, CUT}
    assert {each.status for each in clients.after(known + 1.0)} == {200}


def test_an_incumbent_that_computes_for_a_moment_is_waited_for(real: Gateway) -> None:
    """Nobody stands in for it, so what makes a challenger lose its requests costs it none. Killer: strict for all."""
    one, other = pair(real, Requests())
    clients, is_waited_for = Crowd(), False

    def hung_for_a_moment() -> bool:
        """Whether it was one: on a machine that is so busy that it was not, nothing is learned."""
        nonlocal clients, is_waited_for
        real.settled()
        with crowd(real) as clients:
            begun = time.monotonic()
            one.hang()
            other.hang()
            assert wait_until(lambda: found_out(real))
            is_waited_for = bool(real.writer.envoy.healthy()["housing@1.0.0~n001"])
            one.go_on()
            other.go_on()
            hung = time.monotonic() - begun
            assert wait_until(lambda: not found_out(real))
        return hung < MOMENT

    assert wait_until(hung_for_a_moment)
    assert is_waited_for
    assert Counter(each.status for each in clients.found) == {200: len(clients.found)}


class Late(Upstream):
    """Takes a moment for whoever comes for the first time: its health is asked on one connection all the while."""

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.1)
        await super()._connected(reader, writer)


def test_a_challenger_is_warm_before_its_first_request_I5(real: Gateway) -> None:
    """Its health is known through the very cluster that is routed to. Killer: do not wait for it."""
    one, other = real.backyard.process(A, "1.0.0"), real.backyard.process(B, "1.1.0", Late)
    real.serve((one.upstream, 100), (other.upstream, 0))
    with crowd(real, 4) as clients:
        real.writer.shift("housing", 1, [(A, 50), (B, 50)], Stamp(2, 1))
        clients.more(200)
    log = [each for each in real.logged(len(clients.found)) if each.assigned == B]
    assert len(log) > 50
    assert {each.answered for each in log} == {B}


def test_a_promotion_costs_nothing_and_nobody_steps_in(real: Gateway) -> None:
    """Routes go from the winner's strict cluster to its patient one, which was warm all along, and back."""
    pair(real, Requests())
    with crowd(real, 4) as clients:
        for number, shares in enumerate([[(B, 100)], [(B, 50), (A, 50)], [(A, 100)], [(A, 50), (B, 50)]], 2):
            real.writer.shift("housing", 1, shares, Stamp(number, 1))
            clients.more(100)
    assert {each.status for each in clients.found} == {200}
    assert not [each for each in real.logged(len(clients.found)) if each.answered != each.assigned]


def test_a_challenger_that_is_well_but_mute_is_put_aside(real: Gateway) -> None:
    """F66: it answers when asked how it is, and nothing else. Killers: no outlier detection; by failures in a row.

    Of four clients never five fail in a row: each has been handed over before.
    """
    one = real.backyard.process(A, "1.0.0", asked=TWICE)
    other = real.backyard.add(B, "1.1.0", asked=TWICE, delay=2 * LONG)
    real.serve((one.upstream, 50), (other, 50))
    with crowd(real, 4) as clients:
        clients.more(200)
    assert {each.status for each in clients.found} == {200}
    own = [each for each in real.logged(len(clients.found)) if each.assigned == B]
    assert 1 <= other.requests < len(own) / 2


@pytest.mark.parametrize("asked", [TWICE, ONCE], ids=["twice", "once"])
def test_a_dead_process_among_several_costs_nothing(real: Gateway, asked: Requests) -> None:
    """I8: what it had not begun meets another process, and so does what it had, if it may. Killer: no other host."""
    parts = [real.backyard.process(A, "1.0.0", delay=0.01) for _ in range(3)]
    sockets = tuple(str(part.upstream.socket) for part in parts)
    real.writer.offer("housing", [replace(parts[0].endpoint, sockets=sockets, nonce_aware=False, requests=asked)], ONE)
    real.writer.shift("housing", 1, [(A, 100)], ONE)
    assert wait_until(lambda: real.writer.envoy.healthy()["housing@1.0.0~n001"] == 3)
    with crowd(real) as clients:
        parts[1].die()
        assert wait_until(lambda: real.writer.envoy.healthy()["housing@1.0.0~n001"] == 2)
        known = time.monotonic()
        assert wait_until(lambda: len(clients.after(known)) > 200)
    lost = [each for each in clients.found if each.status != 200]
    assert len(lost) <= (0 if asked.idempotent else 40), "what was under way, and what met a connection just closing"
    assert {each.status for each in clients.after(known)} == {200}


def test_what_is_told_of_a_server_is_what_is_done(real: Gateway) -> None:
    """I5: who is well again is asked at once. Killer: have such news gathered for a second, as Envoy does by itself."""
    only = real.backyard.add(A, "1.0.0")
    real.serve((only, 100))
    only.die()
    assert wait_until(lambda: not real.writer.envoy.healthy()["housing@1.0.0~n001"])
    assert real.ask().status == 503
    only.live()
    real.settled()
    assert real.ask().status == 200
