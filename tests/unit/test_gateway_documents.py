"""This file tests what the gateway's documents say of requests and of who is under test, without a gateway (F66)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from branchline.adapters.envoy_documents import STRICT, Places, clusters
from branchline.adapters.envoy_listener import bootstrap
from branchline.adapters.envoy_routes import routes
from branchline.adapters.envoy_table import Gateway, Routes, offered, shifted
from branchline.core.spec import Requests
from branchline.ports import Endpoint

PLACES = Places(Path("/s/gateway"), Path("/r/envoy.sock"), Path("/r/ingest.sock"))
PLAIN, TWICE = Requests(), Requests(idempotent=True, try_timeout=0.25)


def served(*asked: Requests, sockets: int = 1) -> Gateway:
    """Revisions a, b … with these requests and equal shares; a holds the arm."""
    ends = [
        Endpoint(name, f"1.{n}.0", f"n{name}", tuple(f"/r/{name}{k}" for k in range(sockets)), requests=each)
        for n, (name, each) in enumerate(zip("abcd", asked, strict=False))
    ]
    shares = [(end.revision, 100 // len(ends)) for end in ends]
    return Gateway(1, 1, {"housing": shifted(offered(Routes(), ends), "housing", 1, shares, 1)})


def actions(document: Any) -> Iterator[dict[str, Any]]:
    """Every route action to a revision in a route table."""
    if isinstance(document, list):
        for each in document:
            yield from actions(each)
    elif isinstance(document, dict):
        action = document.get("route", {})
        if "weighted_clusters" in action or "@" in action.get("cluster", ""):
            yield action
        for each in document.values():
            yield from actions(each)


def test_only_who_is_under_test_has_a_strict_cluster() -> None:
    """A promotion moves routes to a cluster that was warm all along; pins never lead through a strict one."""
    names = {cluster["name"] for cluster in clusters(served(PLAIN, PLAIN), PLACES)}
    assert {name for name in names if name.endswith(STRICT)} == {"housing@1.1.0~nb!"}
    assert {"housing@1.0.0~na", "housing@1.1.0~nb", "housing@1.1.0~nb!>housing@1.0.0~na"} <= names
    assert not [name for name in (c["name"] for c in clusters(served(PLAIN), PLACES)) if STRICT in name]
    assert not [action for action in actions(routes(served(PLAIN, PLAIN))) if action.get("cluster", "").endswith("!")]


def test_a_strict_cluster_has_the_same_place_other_statistics_and_no_quarrel_with_errors() -> None:
    """F68: put aside is who hangs or is gone. A statistic of two clusters would count both as one."""
    found = {cluster["name"]: cluster for cluster in clusters(served(PLAIN, PLAIN), PLACES)}
    strict, patient = found["housing@1.1.0~nb!"], found["housing@1.1.0~nb"]
    assert strict["load_assignment"]["endpoints"] == patient["load_assignment"]["endpoints"]
    assert strict["metadata"] == patient["metadata"]
    assert strict["alt_stat_name"] != patient["alt_stat_name"]
    assert "outlier_detection" not in patient
    ejection = strict["outlier_detection"]
    assert {
        ejection[f"enforcing_{of}"] for of in ("consecutive_5xx", "consecutive_gateway_failure", "success_rate")
    } == {0}


@pytest.mark.parametrize(
    ("timeout", "action"),
    [
        (15.0, {"timeout": "15s"}),
        (0.5, {"timeout": "0.5s"}),
        (300.0, {"timeout": "300s", "idle": "300s", "longest": "2100s"}),
        (0.0, {"timeout": "0s", "idle": "0s", "longest": "0s"}),
    ],
)
def test_a_time_is_also_that_of_a_quiet_stream(timeout: float, action: dict[str, str]) -> None:
    """Killer: leave the listener's 60 s to a request that may compute for 300 s."""
    for found in actions(routes(served(Requests(timeout=timeout)))):
        longest = found.get("max_stream_duration", {}).get("max_stream_duration")
        told = {"timeout": found["timeout"], "idle": found.get("idle_timeout"), "longest": longest}
        assert {name: value for name, value in told.items() if value} == action


@pytest.mark.parametrize("both", [True, False])
def test_a_split_is_tried_twice_only_if_every_arm_may_be(both: bool) -> None:
    """Killer: ask the holder alone."""
    split = [a for a in actions(routes(served(TWICE, TWICE if both else PLAIN))) if "weighted_clusters" in a]
    assert split
    for action in split:
        policy = action.get("retry_policy", {})
        assert ("reset" in policy.get("retry_on", "").split(",")) == both
        assert policy.get("per_try_timeout") == ("0.25s" if both else None)


def test_what_is_plain_brings_no_nested_message() -> None:
    """They are what makes a large route table slow: retries elsewhere are said once for all addresses by path."""
    *hosts, paths = routes(served(PLAIN))[0]["virtual_hosts"]
    assert "typed_config" not in json.dumps(hosts)
    assert "retry_policy" not in json.dumps(paths["matcher"])
    several, *_ = routes(served(PLAIN, sockets=3))[0]["virtual_hosts"]
    assert several["retry_policy"]["retry_host_predicate"]


@pytest.mark.parametrize(("sockets", "seldom"), [(1, True), (3, False)])
def test_only_a_single_process_that_nobody_asks_is_asked_seldom(sockets: int, seldom: bool) -> None:
    """Killer: several, too, and a request goes from a dead process to one that is not known to be dead."""
    for cluster in clusters(served(PLAIN, PLAIN, sockets=sockets), PLACES):
        for check in cluster.get("health_checks", ()):
            assert check["no_traffic_interval"] == check["interval"]
            assert (check["no_traffic_healthy_interval"] != check["interval"]) == seldom


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("cluster.housing__1_0_0__n1.upstream_rq_2xx", True),
        ("cluster.housing__1_0_0__n1.upstream_rq_time", True),
        ("cluster.housing__1_0_0__n1.upstream_cx_total", True),  # else Envoy never knows that somebody is asked
        ("cluster.housing__1_0_0__n1.upstream_cx_rx_bytes_total", False),
        ("cluster.housing__1_0_0__n1.circuit_breakers.default.rq_open", False),
        ("cluster_manager.cds.version_text", True),
        ("http.gateway.rds.branchline.update_rejected", True),
        ("server.memory_allocated", True),
        ("filesystem.write_failed", True),
    ],
)
def test_what_nobody_reads_of_a_cluster_is_not_counted(name: str, counted: bool) -> None:
    """Of many clusters it is most of a start and half of the memory. Killer: count all, or what begins alike."""
    (pattern,) = bootstrap(PLACES)["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    assert bool(re.fullmatch(pattern["safe_regex"]["regex"], name)) == counted


def test_memory_has_an_end() -> None:
    """F72: and the nearer it is the less is taken in."""
    manager = bootstrap(PLACES)["overload_manager"]
    assert {
        action["name"].rpartition(".")[2]: action["triggers"][0]["threshold"]["value"] for action in manager["actions"]
    } == {
        "shrink_heap": 0.9,
        "stop_accepting_requests": 0.95,
    }
