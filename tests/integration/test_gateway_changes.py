"""This file changes what a gateway serves while everything is asked of it: nothing fails (1.27, 3.15)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.envoy_meter import GatewayLog
from branchline.core.spec import Requests
from branchline.ports import Served, Stamp
from tests.calls import Called
from tests.gateways import Gateway, gateway, upgraded
from tests.mixture import everything, is_held, mixture
from tests.upstreams import Upstream
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
A, B = "a" * 40, "b" * 40
ROLES = ("housing", A, "1.0.0"), ("housing", B, "1.1.0"), ("calls", A, "1.0.0")
CHANGES, REPLACEMENTS = 100, 30
LEAVING = 12  # seconds that a gateway which was replaced has for what it has begun: three, and a busy machine


class Shop:
    """Who serves `housing` in halves, and `calls` alone; each is replaced one after the other.

    A challenger of `calls` would be let go of when its pings wait for 0.3 s, as they may in a test that is so busy.
    """

    def __init__(self, real: Gateway) -> None:
        self.real = real
        self.serving: dict[tuple[str, str], Upstream] = {}
        self.retired: list[Upstream] = []
        self.generation = 1
        for service, revision, version in ROLES:
            self.serving[service, revision] = self.server(service, revision, version)
        self.offer("housing")
        self.offer("calls")
        self.share(50)
        self.real.writer.shift("calls", 1, ((A, 100),), Stamp(self.generation, 1))

    def server(self, service: str, revision: str, version: str) -> Upstream:
        """A new incarnation; a gRPC call of three answers takes as long as a stream."""
        if service == "calls":
            asked = Requests(protocol="http2", timeout=0)
            return self.real.backyard.add(revision, version, Called, asked=asked, delay=0.7)
        return self.real.backyard.add(revision, version, asked=Requests(timeout=0), speaks=everything)

    def offer(self, service: str) -> None:
        """Make known who serves by now."""
        self.generation += 1
        endpoints = [each.endpoint for (name, _), each in self.serving.items() if name == service]
        self.real.writer.offer(service, endpoints, Stamp(self.generation, 1))

    def share(self, share: int) -> None:
        """Give the challenger so many per cent."""
        self.generation += 1
        shares = ((A, 100 - share), (B, share))
        self.real.writer.shift("housing", 1, shares, Stamp(self.generation, 1))

    def replace(self, service: str, revision: str) -> None:
        """Another incarnation takes over; those before are stopped once the gateway has let go of them.

        The one that is replaced now is not yet: a connection that it has not taken up shows nowhere.
        """
        old = self.serving[service, revision]
        self.serving[service, revision] = self.server(service, revision, old.version)
        self.offer(service)
        for each in [each for each in self.retired if not is_held(each)]:
            each.die()
            self.retired.remove(each)
        self.retired.append(old)


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


def port_of(real: Gateway) -> int:
    return int(real.writer.address("housing").rsplit(":", 1)[1].partition("/")[0])


def logged(real: Gateway, count: int) -> list[Served]:
    """The requests in the log once there are so many, from the first to the last."""
    log = GatewayLog(real.writer.envoy)
    assert wait_until(lambda: len(log.read("", limit=count + 1)[0]) >= count)
    return list(log.read("", limit=2 * count)[0])


def test_weights_and_servers_change_and_nobody_notices(real: Gateway) -> None:
    """3.15, 1.27: 100 changes of shares, 30 replacements of an arm's servers. Killer: stop them while they are held."""
    shop = Shop(real)
    with mixture(port_of(real)) as asked:
        for number in range(CHANGES):
            shop.share(5 + number * 37 % 90)
            if number * REPLACEMENTS % CHANGES < REPLACEMENTS:
                shop.replace(*ROLES[number % 3][:2])
    assert asked.wrong == []
    served = logged(real, asked.whole.total())
    assert len(served) == asked.whole.total()
    assert {each.answered for each in served} == {A, B}


def test_the_gateway_itself_is_replaced_and_nobody_notices(
    real: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.15, 1.27: twice, while shares and servers change, too. Killer: stop it and start the new one (45 ms)."""
    real.writer = real.another(leaving_seconds=LEAVING)
    shop, envoy = Shop(real), real.writer.envoy
    pids, log = [envoy.pid], GatewayLog(envoy)
    with mixture(port_of(real)) as asked:
        for number in (1, 2):
            monkeypatch.setenv("BRANCHLINE_ENVOY", str(upgraded(tmp_path / f"envoy-{number}")))
            log.sample()
            assert not real.writer.ensure(), "it need not be started"
            pids.append(envoy.pid)
            assert list(envoy.leaving.values()) == pids[-2:-1]
            for role in ROLES:
                shop.share(10 * number + len(role[0]))
                shop.replace(*role[:2])
            assert wait_until(lambda: not envoy.leaving)
    assert (asked.wrong, len(set(pids))) == ([], 3)
    count = asked.whole.total()
    assert len(logged(real, count)) == count
    log.read("", limit=2 * count)
    assert log.loss() == 0
    assert not real.writer.ensure()
    assert envoy.pid == pids[-1]
