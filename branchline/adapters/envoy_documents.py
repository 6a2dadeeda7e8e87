"""This file renders Envoy's bootstrap, listener and clusters from what the gateway is to know; pure.

Rules. Every endpoint is a STATIC cluster `SERVICE@VERSION~NONCE` inside the one cluster document (a file per cluster
costs an inotify instance each, and at about 120 Envoy aborts); a new incarnation is a new name, so no cluster is
changed in place. An arm that can fall back is an aggregate, named after its members for the same reason. The revision
stands in the metadata of the cluster (what was assigned) and of the host (what answered): they differ exactly when
the trunk's holder stepped in. The listener never changes, for a changed one drains its connections; what changes
lives in clusters and routes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchline.adapters.envoy_table import Gateway, Line, Routes
from branchline.core.codes import problem
from branchline.errors import (
    BranchlineError,
    DaemonDown,
    NoInstance,
    TooLarge,
    TooSlow,
    TrafficError,
    UnitRefused,
    Unserved,
)
from branchline.ports import Endpoint

Document = dict[str, Any]

COOKIE = "branchline-unit"
PIN = "x-branchline-pin"
DAEMON = "branchline:daemon"
LARGEST_BODY = 64 << 20
SECONDS = 15
_API = "type.googleapis.com/envoy."
_BREAKERS = {
    "thresholds": [
        {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 16384, "max_retries": 256},
    ]
}
_NO_PANIC = {"healthy_panic_threshold": {"value": 0}}


def typed(message: str, **fields: Any) -> Document:
    """One of Envoy's messages by its name after `envoy.`, as it stands in an Any."""
    return {"@type": _API + message, **fields}


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are on this machine: the folder of the documents, the sockets, and where people knock."""

    folder: Path
    admin: Path
    ingest: Path
    host: str = "127.0.0.1"


# ------------------------------------------------------------------------------------------------ bootstrap


def bootstrap(places: Places) -> Document:
    """What Envoy is started with; everything else it reads from the two files named here."""
    tags = {
        "branchline_service": r"^cluster\.(?:(([a-z0-9-]+))__)",
        "branchline_revision": r"^cluster\.[a-z0-9-]+__(([0-9A-Za-z_-]+?))__",
    }
    return {
        "node": {"id": "branchline", "cluster": "branchline"},
        "admin": {"address": {"pipe": {"path": str(places.admin), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": _file(places.folder / "lds.json"),
            "cds_config": _file(places.folder / "cds.json"),
        },
        "stats_config": {"stats_tags": [{"tag_name": tag, "regex": regex} for tag, regex in tags.items()]},
        # Pins and the longest unit make larger expressions than the default of 100 instructions.
        "layered_runtime": {
            "layers": [{"name": "branchline", "static_layer": {"re2.max_program_size.error_level": 100_000}}]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _API
                        + "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 20000,
                    },
                }
            ]
        },
    }


def _file(path: Path) -> Document:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


# ------------------------------------------------------------------------------------------------ the listener


def listeners(places: Places, port: int) -> list[Document]:
    """The one listener: limits, the filter that mints units, the log, and answers of the gateway's own as RFC 9457."""
    connection = {
        "@type": _API + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": {"route_config_name": "branchline", "config_source": _file(places.folder / "rds.json")},
        # Without it a client's own x-request-id is kept, and one id may stand for many requests.
        "use_remote_address": True,
        "always_set_request_id_in_response": True,
        "normalize_path": True,
        "max_request_headers_kb": 60,
        "common_http_protocol_options": {"idle_timeout": "300s", "max_headers_count": 200},
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "60s",
        "access_log": [_access_log(places.folder / "access.log")],
        "local_reply_config": _replies(),
        "http_filters": [
            {
                "name": "envoy.filters.http.lua",
                "disabled": True,  # switched on by the one route that needs it
                "typed_config": {
                    "@type": _API + "extensions.filters.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": _MINT},
                },
            },
            {
                "name": "envoy.filters.http.router",
                # Without the x-envoy-… headers, which nobody reads: one per cent or so of a request's processor time.
                "typed_config": {
                    "@type": _API + "extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
    }
    return [
        {
            "@type": _API + "config.listener.v3.Listener",
            "name": "gateway",
            "address": {"socket_address": {"address": places.host, "port_value": port}},
            # With port sharing a second gateway on the same port would take half of the requests in silence.
            "enable_reuse_port": False,
            "per_connection_buffer_limit_bytes": 1 << 20,
            "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connection}]}
            ],
        }
    ]


_MINT = f"""
function envoy_on_request(handle)
  local name = handle:metadata():get("unit_header")
  if name == nil then return end
  local headers = handle:headers()
  local unit = nil
  for place = 0, headers:getNumValues("cookie") - 1 do
    unit = unit or (";" .. headers:getAtIndex("cookie", place)):match(";%s*{COOKIE.replace("-", "%-")}=([^;,%s]+)")
  end
  if unit == nil or #unit > 200 then
    unit = headers:get("x-request-id")
    handle:streamInfo():dynamicMetadata():set("branchline", "minted", unit)
  end
  headers:replace(name, unit)
  handle:clearRouteCache()
end

function envoy_on_response(handle)
  local kept = handle:streamInfo():dynamicMetadata():get("branchline")
  if kept and kept["minted"] then
    handle:headers():add("set-cookie",
      "{COOKIE}=" .. kept["minted"] .. "; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax")
  end
end
"""


def _access_log(path: Path) -> Document:
    """One JSON line a request; the reader takes those of split routes."""
    line = {
        "at": "%START_TIME(%s.%6f)%",
        "boot": "%ENVIRONMENT(BRANCHLINE_BOOT)%",
        "route": "%ROUTE_NAME%",
        "unit": "%REQ(X-BRANCHLINE-UNIT)%",
        "assigned": "%METADATA(CLUSTER:branchline:commit)%",
        "answered": "%METADATA(UPSTREAM_HOST:branchline:commit)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
        "request": "%REQ(X-REQUEST-ID)%",
        "prediction": "%RESP(X-BRANCHLINE-PREDICTION)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": _API + "extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": line},
        },
    }


def _replies() -> Document:
    """The gateway's own answers as problem details (RFC 9457), the first that fits."""
    unreachable = {"response_flag_filter": {"flags": ["UH", "UF", "UC", "UO", "LR", "URX", "NC"]}}
    of_daemon = {"header_filter": {"header": {"name": "x-branchline-ask", "present_match": True}}}
    return {
        "mappers": [
            _reply({"and_filter": {"filters": [unreachable, of_daemon]}}, DaemonDown()),
            _reply(unreachable, NoInstance()),
            _reply(_status(400), UnitRefused()),
            _reply(_status(404), Unserved(address="The address")),
            _reply(_status(413), TooLarge()),
            _reply(_status(504), TooSlow()),
        ],
        "body_format": _problem(TrafficError()),
    }


def _reply(when: Document, error: BranchlineError) -> Document:
    return {"filter": when, "body_format_override": _problem(error)}


def _problem(error: BranchlineError) -> Document:
    told = {
        **problem(error),
        "status": "%RESPONSE_CODE%",
        "detail": "%REQ(:METHOD)% %REQ(:AUTHORITY)%%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "request": "%REQ(X-REQUEST-ID)%",
    }
    return {"json_format": told, "content_type": "application/problem+json"}


def _status(code: int) -> Document:
    value = {"default_value": code, "runtime_key": f"branchline.reply.{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


# ------------------------------------------------------------------------------------------------ clusters


def cluster_of(service: str, endpoint: Endpoint) -> str:
    """The name of an endpoint's cluster."""
    return f"{service}@{endpoint.version}~{endpoint.nonce}"


def arm_of(service: str, routes: Routes, line: Line, revision: str) -> str:
    """The cluster that an arm of a line is routed to: its newest endpoint, or an aggregate that can fall back."""
    members = _members(service, routes, line, revision)
    return members[0] if len(members) == 1 else ">".join(members)


def _members(service: str, routes: Routes, line: Line, revision: str) -> list[str]:
    """An arm's own endpoints, the newest first, then those of the trunk's holder."""
    fall_back = routes.group(line.holder) if revision != line.holder else ()
    return [cluster_of(service, e) for e in (*routes.group(revision), *fall_back)]


def clusters(gateway: Gateway, places: Places) -> list[Document]:
    """Every cluster, by name once: the daemon's, one for each endpoint, one for each arm that can fall back."""
    found = {DAEMON: _daemon(places)}
    for service, routes in gateway.services.items():
        for known in routes.known:
            found[cluster_of(service, known.endpoint)] = _endpoint(service, known.endpoint)
        for _, line in routes.lines:
            for revision, _ in line.shares:
                members = _members(service, routes, line, revision)
                if len(members) > 1:
                    found[">".join(members)] = _arm(service, routes, revision, members)
    return list(found.values())


def _endpoint(service: str, endpoint: Endpoint) -> Document:
    check: Document = {
        "timeout": "1s",
        "interval": "0.25s",
        "no_traffic_interval": "0.25s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": endpoint.health, "host": service},
    }
    if endpoint.nonce_aware:
        # A stranger on this socket answers with another nonce, or with none, and gets nothing (F73).
        check["http_health_check"]["service_name_matcher"] = {"exact": endpoint.nonce}
    else:
        check["http_health_check"]["expected_statuses"] = [{"start": 200, "end": 500}]
    name, metadata = cluster_of(service, endpoint), _revision(service, endpoint)
    hosts = [
        {"endpoint": {"address": {"pipe": {"path": socket}}}, "metadata": metadata, "load_balancing_weight": 1}
        for socket in endpoint.sockets
    ]
    return {
        "@type": _API + "config.cluster.v3.Cluster",
        "name": name,
        "alt_stat_name": _statistic(service, endpoint.version, endpoint.nonce),
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        "metadata": metadata,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]},
        "health_checks": [check],
        "circuit_breakers": _BREAKERS,
        "common_lb_config": _NO_PANIC,
        "typed_extension_protocol_options": _idle(3),
    }


def _arm(service: str, routes: Routes, revision: str, members: list[str]) -> Document:
    own = routes.group(revision)[0]
    return {
        "@type": _API + "config.cluster.v3.Cluster",
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
                "@type": _API + "extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": members,
            },
        },
    }


def _daemon(places: Places) -> Document:
    return {
        "@type": _API + "config.cluster.v3.Cluster",
        "name": DAEMON,
        "alt_stat_name": "branchline_daemon",
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "load_assignment": {
            "cluster_name": DAEMON,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(places.ingest)}}}}]}],
        },
        "typed_extension_protocol_options": _idle(3),
    }


def _idle(seconds: int) -> Document:
    """Close idle connections before the server does (uvicorn: 5 s), or a request now and then meets a closed one."""
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": _API + "extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"idle_timeout": f"{seconds}s"},
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }


def _revision(service: str, endpoint: Endpoint) -> Document:
    named = {"revision": f"{service}@{endpoint.version}", "commit": endpoint.revision}
    return {"filter_metadata": {"branchline": named}}


def _statistic(service: str, version: str, nonce: str) -> str:
    """A name without dots, which would cut the labels of the metrics."""
    return f"{service}__{re.sub('[^0-9A-Za-z-]', '_', version)}__{nonce}"
