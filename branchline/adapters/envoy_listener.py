"""This file renders Envoy's bootstrap and the one listener: limits, the log, and the gateway's own answers; pure.

Rules. The listener never changes while it stands, for a changed one drains its connections: what changes lives in
clusters and routes. Nothing in here knows a service.
"""

from __future__ import annotations

from pathlib import Path

from branchline.adapters.envoy import FILES
from branchline.adapters.envoy_documents import (
    API,
    COUNTED,
    LARGEST_BODY,
    LARGEST_HEAP,
    LIMIT,
    LONGEST_SECONDS,
    QUIET_SECONDS,
    Document,
    Places,
    typed,
)
from branchline.adapters.envoy_units import FIND, SCRIPT
from branchline.core.codes import problem
from branchline.errors import (
    BranchlineError,
    DaemonDown,
    NoInstance,
    RequestRefused,
    TooLarge,
    TooSlow,
    TrafficError,
    Unserved,
)

_AS_IT_IS = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}, "content_type": "application/json"}
# The words of a line's first value, in order; `-` where there is nothing to tell.
TOLD = {
    "at": "%START_TIME(%s.%6f)%",
    "boot": "%ENVIRONMENT(BRANCHLINE_BOOT)%",
    "route": "%ROUTE_NAME%",
    "assigned": "%METADATA(CLUSTER:branchline:commit)%",
    "answered": "%METADATA(UPSTREAM_HOST:branchline:commit)%",
    "status": "%RESPONSE_CODE%",
    "grpc": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "request": "%REQ(X-REQUEST-ID)%",
}
_HEAP = "envoy.resource_monitors.fixed_heap"
RUNTIME = {
    # Pins and the longest unit make larger expressions than the default of 100 instructions.
    "re2.max_program_size.error_level": 100_000,
    # A header of two lines is one with a comma between: else each would be a unit, or a pin, of its own, and the hash
    # of both a third one's.
    "envoy.reloadable_features.match_headers_individually": False,
}


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
            "lds_config": _file(places.folder / FILES["lds"]),
            "cds_config": _file(places.folder / FILES["cds"]),
        },
        "stats_config": {
            "stats_tags": [{"tag_name": tag, "regex": regex} for tag, regex in tags.items()],
            "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": COUNTED}}]}},
        },
        "layered_runtime": {"layers": [{"name": "branchline", "static_layer": RUNTIME}]},
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                {
                    "name": _HEAP,
                    "typed_config": typed(
                        "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=LARGEST_HEAP
                    ),
                },
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": API
                        + "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 20000,
                    },
                },
            ],
            # Before the machine kills it: give back what is free, then take no new requests.
            "actions": [_from(0.9, "shrink_heap"), _from(0.95, "stop_accepting_requests")],
        },
    }


def _from(share: float, action: str) -> Document:
    """What is done from this share of the largest heap on."""
    trigger = {"name": _HEAP, "threshold": {"value": share}}
    return {"name": f"envoy.overload_actions.{action}", "triggers": [trigger]}


def _file(path: Path) -> Document:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


# ------------------------------------------------------------------------------------------------ the listener


def listeners(places: Places, port: int) -> list[Document]:
    """The one listener: limits, the filter that mints units, the log, and answers of the gateway's own as RFC 9457."""
    connection = {
        "@type": API + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "rds": {"route_config_name": "branchline", "config_source": _file(places.folder / FILES["rds"])},
        # Without it a client's own x-request-id is kept, and one id may stand for many requests.
        "use_remote_address": True,
        "always_set_request_id_in_response": True,
        "normalize_path": True,
        "max_request_headers_kb": 60,
        # A path's slashes are the service's own: routes look at the path as it came, and nobody else looks again.
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "common_http_protocol_options": {
            "idle_timeout": "300s",
            "max_headers_count": 200,
            # Some servers take an underscore for a dash, and would see another header than we did.
            "headers_with_underscores_action": "DROP_HEADER",
            # The slowest body: `request_timeout` would do the same to streams, and no route can set that aside.
            "max_stream_duration": f"{LONGEST_SECONDS}s",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 128,
            "initial_stream_window_size": 1 << 18,
            "initial_connection_window_size": 1 << 22,
        },
        "request_headers_timeout": "10s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "stream_idle_timeout": f"{QUIET_SECONDS}s",
        "access_log": [_access_log(places.folder / "access.log")],
        "local_reply_config": _replies(),
        "http_filters": _filters(),
    }
    return [
        {
            "@type": API + "config.listener.v3.Listener",
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


def _filters() -> list[Document]:
    """What each request passes: who it is, if nobody has said so, how large it is, and where it goes."""
    return [
        {
            "name": SCRIPT,
            "disabled": True,  # switched on by the one route that needs it
            "typed_config": {
                "@type": API + "extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": FIND},
            },
        },
        {
            "name": LIMIT,  # also of a body that does not say how long it is; it counts, and keeps nothing
            "typed_config": typed(
                "extensions.filters.http.body_size_limit.v3.BodySizeLimit", max_request_bytes=LARGEST_BODY
            ),
        },
        {
            "name": "envoy.filters.http.router",
            # Without the x-envoy-… headers, which nobody reads: one per cent or so of a request's processor time.
            "typed_config": {
                "@type": API + "extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": True,
            },
        },
    ]


def _access_log(path: Path) -> Document:
    """One line of JSON a request; the reader takes those of split routes.

    What no client and no server can have words in is one text: a value for each would cost more, and be longer.
    """
    line = {
        "told": " ".join(TOLD.values()),
        "unit": "%REQ(X-BRANCHLINE-UNIT)%",
        "prediction": "%RESP(X-BRANCHLINE-PREDICTION)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": API + "extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": line},
        },
    }


def _replies() -> Document:
    """The gateway's own answers as problem details (RFC 9457), the first that fits."""
    unreachable = {"response_flag_filter": {"flags": ["UH", "UF", "UC", "UO", "LR", "URX", "NC"]}}
    of_daemon = {"header_filter": {"header": {"name": "x-branchline-ask", "present_match": True}}}
    expression = "response.code == 400 && response.code_details == 'direct_response'"
    of_ours = {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": typed("extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=expression),
        }
    }
    return {
        "mappers": [
            {"filter": _status(200), "body_format_override": _AS_IT_IS},
            _reply({"and_filter": {"filters": [unreachable, of_daemon]}}, DaemonDown()),
            _reply(unreachable, NoInstance()),
            _reply(of_ours, _refused("it names more than one unit, or one of more than 200 bytes")),
            _reply(_status(400), _refused("it is no well-formed HTTP")),
            _reply(_status(403), _refused("it asks for another protocol than WebSocket")),
            _reply(_status(408), _refused("it came too slowly")),
            _reply(_status(431), TooLarge()),
            _reply(_status(404), Unserved(address="The address")),
            _reply(_status(413), TooLarge()),
            _reply(_status(504), TooSlow()),
        ],
        "body_format": _problem(TrafficError()),
    }


def _refused(reason: str) -> BranchlineError:
    return RequestRefused(reason=reason)


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
