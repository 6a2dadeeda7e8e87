"""This file renders Envoy's clusters from what the gateway is to know, and says where its parts lie; pure.

Rules. Every endpoint is a STATIC cluster `SERVICE@VERSION~NONCE` inside the one cluster document (a file per cluster
costs an inotify instance each, and at about 120 Envoy aborts); a new incarnation is a new name, so no cluster is
changed in place. An arm that can fall back is an aggregate, named after its members for the same reason. The revision
stands in the metadata of the cluster (what was assigned) and of the host (what answered): they differ exactly when
the trunk's holder stepped in. Who is under test is reached through a second, strict cluster: found dead or hung within
a second, for somebody stands in. The trunk's holder has nobody, and a process that computes for a second is not dead.
A single process that was never asked for anything is seldom asked for its health: Envoy does that with its first
thread, which takes new routes, too, and of many services most are idle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from branchline.adapters.envoy_table import SERVICES, Gateway, Line, Routes
from branchline.ports import Endpoint

Document = dict[str, Any]

COOKIE = "branchline-unit"
PIN = "x-branchline-pin"
DAEMON = "branchline:daemon"
LIMIT = "envoy.filters.http.body_size_limit"
LARGEST_BODY = 64 << 20
LARGEST_HEAP = 2 << 30
SECONDS = 15
QUIET_SECONDS = 60
LONGEST_SECONDS = 1800
API = "type.googleapis.com/envoy."
_BREAKERS = {
    "thresholds": [
        {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 16384, "max_retries": 256},
    ]
}
STRICT = "!"
# Of the 150 statistics of a cluster those that somebody reads, and the one by which Envoy knows that it was asked for
# anything: with all of them many services take three times as long to start.
COUNTED = r"([^c]|c[^l]).*|cluster(_manager\..*|\.[^.]+\.upstream_(cx_total|rq_([1-5]xx|active|time)))"
# Put aside is who hangs or is gone; who answers with errors is not, for the guardrail has to see them (F68).
_IMPATIENT = {
    "outlier_detection": {
        "split_external_local_origin_errors": True,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        # A request that is handed over counts as a success before its time-out counts as a failure: 40 are two thirds.
        "enforcing_failure_percentage_local_origin": 100,
        "failure_percentage_threshold": 40,
        "failure_percentage_minimum_hosts": 1,
        "failure_percentage_request_volume": 6,
        "interval": "1s",
        "base_ejection_time": "1s",
        "max_ejection_time": "10s",
        "max_ejection_percent": 100,
        "successful_active_health_check_uneject_host": False,
    },
}
_CALL = {"content-type": "application/grpc", "te": "trailers"}
# Who is found well or ill is so at once wherever requests are: else a second time within a second waits for a second,
# and what Envoy tells of its clusters is not yet what it does.
_NO_PANIC = {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}


def typed(message: str, **fields: Any) -> Document:
    """One of Envoy's messages by its name after `envoy.`, as it stands in an Any."""
    return {"@type": API + message, **fields}


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are on this machine: the folder of the documents, the sockets, and where people knock."""

    folder: Path
    admin: Path
    ingest: Path
    host: str = "127.0.0.1"


def cluster_of(service: str, endpoint: Endpoint) -> str:
    """The name of an endpoint's cluster."""
    return f"{service}@{endpoint.version}~{endpoint.nonce}"


def strict_of(service: str, endpoint: Endpoint) -> str:
    """The name of the cluster through which an endpoint under test is reached: one that loses patience soon."""
    return cluster_of(service, endpoint) + STRICT


def arm_of(service: str, routes: Routes, line: Line, revision: str) -> str:
    """The cluster that an arm of a line is routed to: its newest endpoint, or an aggregate that can fall back."""
    members = _members(service, routes, line, revision)
    return members[0] if len(members) == 1 else ">".join(members)


def _members(service: str, routes: Routes, line: Line, revision: str) -> list[str]:
    """An arm's own endpoints, the newest first, then those of the trunk's holder."""
    holder = [cluster_of(service, e) for e in routes.group(line.holder)]
    return holder if revision == line.holder else [*(strict_of(service, e) for e in routes.group(revision)), *holder]


def clusters(gateway: Gateway, places: Places) -> list[Document]:
    """Every cluster, by name once: the daemon's, one for each endpoint, one for each arm that can fall back."""
    return [_daemon(places), *(each for name, of in gateway.services.items() for each in _clusters(name, of).values())]


def cluster_texts(gateway: Gateway, places: Places) -> dict[str, str]:
    """The same as JSON, by name. One service changes at a time: what was rendered of the others is taken as it was."""
    found = {DAEMON: as_text(_daemon(places))}
    for service, routes in gateway.services.items():
        found.update(_texts(service, routes))
    return found


@lru_cache(maxsize=SERVICES)
def _texts(service: str, routes: Routes) -> Mapping[str, str]:
    return {name: as_text(cluster) for name, cluster in _clusters(service, routes).items()}


def as_text(document: object) -> str:
    """A document as JSON."""
    return json.dumps(document, separators=(",", ":"))


def _clusters(service: str, routes: Routes) -> dict[str, Document]:
    found = {cluster_of(service, known.endpoint): _endpoint(service, known.endpoint) for known in routes.known}
    for _, line in routes.lines:
        for revision, _ in line.shares:
            members = _members(service, routes, line, revision)
            if revision != line.holder:
                found |= {strict_of(service, e): _endpoint(service, e, STRICT) for e in routes.group(revision)}
            if len(members) > 1:
                found[">".join(members)] = _arm(service, routes, revision, members)
    return found


def _endpoint(service: str, endpoint: Endpoint, kind: str = "") -> Document:
    timeout, interval, idle = (0.3, 0.15, 2.0) if kind else (1, 0.25, 10.0)
    if len(endpoint.sockets) > 1:
        idle = interval  # a request goes from one process to another by what is known of them
    check: Document = {
        "timeout": f"{timeout}s",
        "interval": f"{interval}s",
        "no_traffic_interval": f"{interval}s",
        "no_traffic_healthy_interval": f"{idle}s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": endpoint.health, "host": service},
    }
    if endpoint.requests.protocol == "http2":
        # As a call, for a gRPC server lets go of what is none; one that it does not know it answers, with HTTP 200.
        call = [{"header": {"key": name, "value": value}} for name, value in _CALL.items()]
        check["http_health_check"] |= {"codec_client_type": "HTTP2", "method": "POST", "request_headers_to_add": call}
    if endpoint.nonce_aware:
        # A stranger on this socket answers with another nonce, or with none, and gets nothing (F73).
        check["http_health_check"]["service_name_matcher"] = {"exact": endpoint.nonce}
    else:
        check["http_health_check"]["expected_statuses"] = [{"start": 200, "end": 500}]
    name, metadata = cluster_of(service, endpoint) + kind, _revision(service, endpoint)
    hosts = [
        {"endpoint": {"address": {"pipe": {"path": socket}}}, "metadata": metadata, "load_balancing_weight": 1}
        for socket in endpoint.sockets
    ]
    return {
        "@type": API + "config.cluster.v3.Cluster",
        "name": name,
        "alt_stat_name": _statistic(service, endpoint.version, endpoint.nonce + ("-strict" if kind else "")),
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        "metadata": metadata,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
        "health_checks": [check],
        "circuit_breakers": _BREAKERS,
        "common_lb_config": _NO_PANIC,
        "typed_extension_protocol_options": _protocol(endpoint.requests.protocol, kind),
        **(_IMPATIENT if kind else {}),
    }


def _arm(service: str, routes: Routes, revision: str, members: list[str]) -> Document:
    own = routes.group(revision)[0]
    return {
        "@type": API + "config.cluster.v3.Cluster",
        "name": ">".join(members),
        "alt_stat_name": _statistic(service, own.version, "arm-" + own.nonce),
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "0.25s",
        "metadata": _revision(service, own),
        "circuit_breakers": _BREAKERS,
        "common_lb_config": _NO_PANIC,
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": API + "extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": members,
            },
        },
    }


def _daemon(places: Places) -> Document:
    return {
        "@type": API + "config.cluster.v3.Cluster",
        "name": DAEMON,
        "alt_stat_name": "branchline_daemon",
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {
            "cluster_name": DAEMON,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(places.ingest)}}}}]}],
        },
        "typed_extension_protocol_options": _protocol(),
    }


def _protocol(name: str = "http1", kind: str = "") -> Document:
    """Close idle connections before the server does (uvicorn: 5 s), or a request now and then meets a closed one."""
    options: Document = {"http_protocol_options": {}}
    if name == "http2":
        # Only here can what is under way be taken from a process that hangs: HTTP/1 has no question besides requests.
        alive = {"connection_keepalive": {"interval": "0.3s", "timeout": "0.3s"}} if kind else {}
        options = {"http2_protocol_options": alive}
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": API + "extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"idle_timeout": "3s"},
            "explicit_http_config": options,
        }
    }


def _revision(service: str, endpoint: Endpoint) -> Document:
    named = {"revision": f"{service}@{endpoint.version}", "commit": endpoint.revision}
    return {"filter_metadata": {"branchline": named}}


def _statistic(service: str, version: str, nonce: str) -> str:
    """A name without dots, which would cut the labels of the metrics."""
    return f"{service}__{re.sub('[^0-9A-Za-z-]', '_', version)}__{nonce}"
