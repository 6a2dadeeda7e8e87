"""This file plays seed 3: a microservice that asks another one, by canary; a hotfix, a rollback, and its twin in Node.

People look at houses, each visitor a unit; `listings` asks `housing` for the same unit through the gateway.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from http.client import HTTPConnection
from urllib.parse import urlsplit

from branchline.cli import demo_trouble
from branchline.cli.stage import Stage, say, until

SERVICE, TWIN = "listings", "listings-node"
HOUSES = 4


def play(stage: Stage, alone: bool) -> None:
    """Play parts 8 to 10; alone, with something small in the place of the real `housing`."""
    if alone:
        stand_in(stage)
    canary(stage)
    dead(stage)
    hotfix(stage)


def stand_in(stage: Stage) -> None:
    """Something real for `listings` to ask."""
    with stage.part("housing, as small as can be"):
        branch = stage.begin("housing", "ada", "listings/stand-in", "Guess house prices by size and age")
        stage.type("deploy")
        stage.until_gone(branch)


def visits(service: str) -> Callable[[str, Callable[[], bool]], int]:
    """New visitors of a service, each looking at one house."""
    visitors = itertools.count(1)

    def send(gateway: str, going: Callable[[], bool]) -> int:
        connection, sent = HTTPConnection(urlsplit(gateway).netloc, timeout=30), 0
        while going():
            visitor = next(visitors)
            headers = {"x-branchline-unit": f"visitor-{visitor}"}
            connection.request("GET", f"/{service}/{visitor % HOUSES + 1}", headers=headers)
            connection.getresponse().read()
            sent += 1
        connection.close()
        return sent

    return send


def shown(stage: Stage, service: str) -> None:
    """What a visitor is told of a house, and by whom."""
    address = stage.address(service)
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    say(f"$ curl {address}1", dim=True)
    connection.request("GET", f"/{service}/1", headers={"x-branchline-unit": "me"})
    answer = connection.getresponse()
    say(f"{answer.headers['x-branchline-revision']}: {json.dumps(json.load(answer))}")
    connection.close()


def first(stage: Stage, service: str, message: str) -> str:
    """The first revision of a service, committed; returns its branch, not deployed yet."""
    stage.on_main()
    return stage.begin(service, "ada", f"listings/{service}", message)


def changed(stage: Stage, handle: str, because: str, message: str) -> str:
    """A change of the service, by canary, seen to its end by visitors; returns its branch."""
    branch = stage.propose(SERVICE, handle, f"listings/changes/{handle}", because, message)
    stage.type("deploy")
    stage.send(branch, "canary", visits(SERVICE), 0.2, "visitors")
    return branch


def canary(stage: Stage) -> None:
    """The first takes 100 %; the second passes its canary, takes over, is merged and deleted. The twin comes along."""
    with stage.part("listings asks housing, in Python and in Node; a new version passes its canary and is merged"):
        twin = first(stage, TWIN, "List houses, in Node")
        stage.type("deploy", "--wait", "0", ok=(0, 5))
        branch = first(stage, SERVICE, "List houses, each with an estimate")
        stage.type("deploy")
        stage.until_gone(branch)
        shown(stage, SERVICE)
        because = "Buyers want to see what is dear."
        stage.until_gone(changed(stage, "kim", because, "Say how far a price is above the estimate"))
        stage.until_gone(twin)
        shown(stage, SERVICE)
        shown(stage, TWIN)
        stage.type("status")


def dead(stage: Stage) -> None:
    """A challenger's servers die all the while; nobody who asks notices, and its guardrail ends it."""
    with stage.part("a challenger's servers are killed under load: nobody notices, and it is rolled back"):
        because = "Buyers think in dollars."
        branch = stage.propose(SERVICE, "lou", "listings/changes/lou", because, "Say in dollars what is above")
        stage.type("deploy")
        demo_trouble.killed(stage, SERVICE, branch)
        stage.type("status", SERVICE)


def hotfix(stage: Stage) -> None:
    """A canary fails and is rolled back, the incumbent is fixed, and the fix is taken back while the daemon is dead."""
    with stage.part("a canary with errors is rolled back; a hotfix, and a rollback by hand without the daemon"):
        branch = changed(stage, "max", "Agents think in feet of street.", "Say what a foot of street costs")
        until("it is rolled back", lambda: stage.row(branch).get("state") == "rolled back")
        stage.type("status", SERVICE)
        stage.type("fix", SERVICE, "--handle", "percent")
        stage.lay("listings/changes/percent", SERVICE)
        stage.commit(SERVICE, "Say per cent where per cent is promised")
        stage.type("deploy")
        branch = f"fix--{SERVICE}--percent"
        stage.send(branch, "canary", visits(SERVICE), 0.2, "visitors")
        stage.until_gone(branch)
        shown(stage, SERVICE)
        demo_trouble.rolled_back(stage, SERVICE, "Our mail to buyers multiplies by a hundred, too.")
        shown(stage, SERVICE)
        stage.type("status")
        stage.type("parity")
