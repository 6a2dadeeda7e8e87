"""This file tests what the gateway remembers and renders, without a gateway (I26, F16)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from branchline.adapters.envoy_documents import DAEMON, Places, arm_of, clusters
from branchline.adapters.envoy_listener import bootstrap, listeners
from branchline.adapters.envoy_routes import pins_of, routes
from branchline.adapters.envoy_table import (
    Gateway,
    Routes,
    announced,
    gaining,
    offered,
    shifted,
    told,
    unfenced,
)
from branchline.core.spec import Unit
from branchline.core.traffic import left_to
from branchline.errors import Fenced
from branchline.ports import Endpoint, Stamp

ARMS = "abcd"
PLACES = Places(Path("/s/gateway"), Path("/r/envoy.sock"), Path("/r/ingest.sock"))


def endpoint(revision: str, nonce: str = "", split: bool = True) -> Endpoint:
    version = f"1.{ord(revision) - 97}.0"
    return Endpoint(revision, version, nonce or f"n{revision}", (f"/r/{revision}.sock",), split=split)


KNOWN = offered(announced(Routes(), [endpoint(a) for a in ARMS]), [endpoint(a) for a in ARMS])


def test_an_experiment_number_is_never_used_twice_even_after_a_wipe() -> None:
    of = shifted(KNOWN, "housing", 1, [("a", 90), ("b", 10)], 7)
    assert of.lines[0][1].experiment == "housing-1-7"
    of = shifted(of, "housing", 1, [("a", 100)], 7)
    of = shifted(of, "housing", 1, [("a", 90), ("c", 10)], 7)
    assert of.lines[0][1].experiment == "housing-1-8"
    of = shifted(of, "housing", 1, [], 7)
    of = shifted(of, "housing", 1, [("a", 90), ("b", 10)], 7)
    assert of.lines[0][1].experiment == "housing-1-9"


def test_arms_that_come_back_find_their_experiment_again() -> None:
    """1.30, I15: a process that died, or a night with everything down, costs no evidence and moves nobody."""
    of = shifted(KNOWN, "housing", 1, [("a", 50), ("b", 30), ("c", 20)], 3)
    begun = of.line(1)
    assert begun
    for shares in ([("a", 70), ("b", 30)], [("a", 100)], [("a", 70), ("b", 30)]):
        of = shifted(of, "housing", 1, shares, 4)
        line = of.line(1)
        assert line
        assert line.experiment == ("housing-1-3" if len(shares) > 1 else "")
        assert dict(left_to(begun.segments, dict(shares), "a")) == dict(line.segments)
    of = shifted(of, "housing", 1, [("a", 50), ("b", 30), ("c", 20)], 5)
    assert of.line(1) == begun


@pytest.mark.parametrize("between", [[("b", 100)], [("a", 90), ("d", 10)]], ids=["another-holder", "another-arm"])
def test_arms_that_come_back_to_something_else_begin_anew(between: list[tuple[str, int]]) -> None:
    of = shifted(KNOWN, "housing", 1, [("a", 90), ("b", 10)], 3)
    for shares in ([("a", 100)], between, [("a", 100)], [("a", 90), ("b", 10)]):
        of = shifted(of, "housing", 1, shares, 4)
    assert of.lines[0][1].experiment not in ("", "housing-1-3")


def test_the_previous_holder_is_remembered_through_a_test() -> None:
    of = shifted(KNOWN, "housing", 1, [("a", 100)], 1)
    of = shifted(of, "housing", 1, [("b", 100)], 2)
    of = shifted(of, "housing", 1, [("b", 90), ("c", 10)], 3)
    assert (of.lines[0][1].holder, of.lines[0][1].previous) == ("b", "a")
    of = shifted(of, "housing", 1, [("c", 100)], 4)
    assert of.lines[0][1].previous == "b"


def test_who_gains_has_to_be_healthy_and_who_loses_need_not_live() -> None:
    of = shifted(KNOWN, "housing", 1, [("a", 90), ("b", 10)], 1)
    line = of.line(1)
    assert gaining(line, [("a", 100)]) == ("a",)
    assert gaining(line, [("a", 80), ("b", 20)]) == ("b",)
    assert gaining(line, [("b", 10), ("a", 90)]) == ("b",), "a new holder is whom all fall back to"
    assert gaining(line, []) == ()


def test_an_arm_falls_back_to_the_trunks_holder_and_the_holder_to_nobody() -> None:
    of = shifted(KNOWN, "housing", 1, [("a", 90), ("b", 10)], 1)
    line = of.lines[0][1]
    assert arm_of("housing", of, line, "b") == "housing@1.1.0~nb!>housing@1.0.0~na"
    assert arm_of("housing", of, line, "a") == "housing@1.0.0~na"
    again = offered(of, [endpoint("b"), endpoint("b", "nb2"), endpoint("a")])
    assert arm_of("housing", again, line, "b").startswith("housing@1.1.0~nb2!>housing@1.1.0~nb!>")


def test_offering_less_takes_away_only_what_has_no_share() -> None:
    of = shifted(KNOWN, "housing", 1, [("a", 90), ("b", 10)], 1)
    left = offered(of, [])
    assert [k.endpoint.nonce for k in left.known] == ["na", "nb"]
    newer = offered(of, [endpoint("a", "na2")])
    assert [k.endpoint.nonce for k in newer.known] == ["nb", "na2"]


def test_a_cold_endpoint_is_in_no_route() -> None:
    of = announced(shifted(KNOWN, "housing", 1, [("a", 100)], 1), [endpoint("a", "cold")])
    gateway = Gateway(1, 1, {"housing": of})
    assert "housing@1.0.0~cold" in {cluster["name"] for cluster in clusters(gateway, PLACES)}
    assert "cold" not in json.dumps(routes(gateway))


def test_a_pin_means_production_and_the_newest() -> None:
    ends = [endpoint("a", "old"), endpoint("a", "new"), endpoint("a", "staged", split=False)]
    assert pins_of(offered(Routes(), ends))["1.0.0"].nonce == "new"
    assert pins_of(offered(Routes(), ends[2:]))["a"].nonce == "staged"


@pytest.mark.parametrize(("stamp", "late"), [((1, 9), True), ((2, 1), True), ((2, 2), False), ((3, 1), False)])
def test_generation_counts_before_epoch(stamp: tuple[int, int], late: bool) -> None:
    of = told(told(Routes(), Stamp(2, 2)), Stamp(1, 5))
    if late:
        with pytest.raises(Fenced):
            unfenced(of, Stamp(*stamp))
    else:
        unfenced(of, Stamp(*stamp))


def documents(found: object) -> Iterator[dict[str, Any]]:
    """Every document in a document."""
    if isinstance(found, dict):
        yield found
    for each in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from documents(each)


def test_only_who_was_split_is_told_a_unit_that_stands_elsewhere() -> None:
    """Also where the script that looks for it fails: a client's own word reaches nobody."""
    ends = [replace(endpoint(arm), unit=Unit("cookie", "customer")) for arm in "ab"]
    of = shifted(offered(announced(Routes(), ends), ends), "housing", 1, [("a", 90), ("b", 10)], 1)
    found = [each for each in documents(routes(Gateway(1, 1, {"housing": of}))) if "route" in each]
    to_services = [each for each in found if each["route"].get("cluster") != DAEMON]
    split = [each for each in to_services if "weighted_clusters" in each["route"]]
    silent = [each for each in to_services if each.get("request_headers_to_remove") == ["x-branchline-unit"]]
    assert split
    assert silent == [each for each in to_services if each not in split]


def test_the_listener_does_not_change_with_what_is_served() -> None:
    """A changed listener drains its connections."""
    assert json.dumps(listeners(PLACES, 1)) == json.dumps(listeners(PLACES, 1))
    assert "housing" not in json.dumps([listeners(PLACES, 1), bootstrap(PLACES)])


def test_a_statistic_has_no_dots_and_a_socket_only_its_owner() -> None:
    """A dot in a name cuts the labels."""
    stats = [cluster["alt_stat_name"] for cluster in clusters(Gateway(1, 1, {"housing": KNOWN}), PLACES)]
    assert not any("." in name for name in stats)
    assert bootstrap(PLACES)["admin"]["address"]["pipe"]["mode"] == 0o600
