"""This file renders the one route table: which request belongs to which service, line, pin and arm; pure.

Rules. Weights of a split always sum to 10,000 and stand in the order of the bucket table, the same cluster several
times if need be. A pin nobody knows is 404 and never falls into the split; only routes named `split/…` are exposures.
A request that brings its unit meets no script; one without is given a unit by the script and then matched again.
Envoy checks that clusters exist for routes of a host only, not for those found by path; so every service has both,
made by one function. What is taken off a path is told in `x-forwarded-prefix`: who pinned a revision by any word is
told the address by its version, for links that lead to the same revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from branchline.adapters.envoy_documents import (
    DAEMON,
    LARGEST_BODY,
    PIN,
    SECONDS,
    Document,
    arm_of,
    cluster_of,
    typed,
)
from branchline.adapters.envoy_table import Gateway, Line, Routes
from branchline.core.traffic import BUCKETS, salt_of
from branchline.ports import Endpoint

UNIT_HEADER = "x-branchline-unit"
PREFIX_HEADER = "x-forwarded-prefix"
# Of 1 to 200 characters, in blocks: each change of routes compiles this anew, and `{1,200}` takes longer.
# Two headers arrive as one with a comma, so a unit holds none.
_UNIT = "(?:[^,]{20}){0,9}[^,]{1,20}"
_RETRY = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 1}
_FALL_BACK = {
    **_RETRY,
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": typed(
            "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", update_frequency=1
        ),
    },
}
_MINT = {"envoy.filters.http.lua": typed("config.route.v3.FilterConfig", config={})}


def routes(gateway: Gateway) -> list[Document]:
    """The route table: a virtual host for each service, and one that finds services by the first word of the path."""
    served = {name: r for name, r in sorted(gateway.services.items()) if r.known or r.lines}
    hosts: list[Document] = [
        {
            "name": name,
            "domains": [f"{name}.*" if not name.isdigit() else f"{name}.localhost"],  # 127.* is an address
            "routes": list(_service(name, of, by_path=False)),
        }
        for name, of in served.items()
    ]
    paths: Document = {"name": "paths", "domains": ["*"]}
    if served:
        by_word = {
            f"/{name}": {
                "action": {
                    "name": "routes",
                    "typed_config": typed("config.route.v3.RouteList", routes=list(_service(name, of, by_path=True))),
                }
            }
            for name, of in served.items()
        }
        path = typed("type.matcher.v3.HttpRequestHeaderMatchInput", header_name=":path")
        tree = {"input": {"name": "path", "typed_config": path}, "prefix_match_map": {"map": by_word}}
        paths["matcher"] = {"matcher_tree": tree}
    revision = {"key": "x-branchline-revision", "value": "%METADATA(UPSTREAM_HOST:branchline:revision)%"}
    return [
        typed(
            "config.route.v3.RouteConfiguration",
            name="branchline",
            validate_clusters=True,
            ignore_port_in_host_matching=True,
            response_headers_to_add=[{"header": revision, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
            virtual_hosts=[*hosts, paths],
        )
    ]


def pins_of(routes: Routes) -> dict[str, Endpoint]:
    """Every word a request may pin by and where it leads: production before staging, the newest before the older."""
    found: dict[str, Endpoint] = {}
    warm = [k.endpoint for k in routes.known if k.warm]
    for endpoint in sorted(warm, key=lambda e: e.split):
        for pin in (endpoint.revision, endpoint.revision[:7], endpoint.version, *endpoint.pins):
            found[pin] = endpoint
    return found


def _service(service: str, of: Routes, *, by_path: bool) -> Iterator[Document]:
    """The routes of one service, the first that matches wins: what is asked most stands first, and costs no regex."""
    root = f"/{service}" if by_path else ""
    large = {"name": "content-length", "range_match": {"start": LARGEST_BODY + 1, "end": 1 << 62}}
    yield {"match": {"prefix": "/", "headers": [large]}, "direct_response": {"status": 413}}
    yield _ask(service, root, "v", "GET")
    yield _ask(service, root, "outcomes", "POST")
    unpinned: Document = {"prefix": f"{root}/", "headers": [{"name": PIN, "present_match": False}]}
    if of.lines:  # the newest line has the plain address
        yield from _split(service, of, *of.lines[-1], unpinned, {"prefix_rewrite": "/"} if by_path else {}, root)
    if by_path:
        rewrite = {"regex_rewrite": {"pattern": {"regex": f"^/{service}(?:@[^/]+)?/?"}, "substitution": "/"}}
        yield from _addresses(service, of, rewrite)
        yield from _pins(service, of, {"path_separated_prefix": root}, rewrite, root)
        if of.lines:
            yield from _split(service, of, *of.lines[-1], {"path": root}, rewrite, root)
    else:
        yield from _pins(service, of, {"prefix": "/"}, {}, root)


def _addresses(service: str, of: Routes, rewrite: Document) -> Iterator[Document]:
    """`/SERVICE@REF/`: lines first, for a branch named like one must not take its address."""
    for number, line in of.lines:
        address = f"/{service}@v{number}"
        yield from _split(service, of, number, line, {"path_separated_prefix": address}, rewrite, address)
    for endpoint, either in _words(of):
        match = {"safe_regex": {"regex": f"/{service}@(?:{either})(?:/.*)?"}}
        route = _to(rewrite, cluster=cluster_of(service, endpoint))
        yield {"match": match, "route": route, **_headers(f"/{service}@{endpoint.version}")}


def _pins(service: str, of: Routes, here: Document, rewrite: Document, root: str) -> Iterator[Document]:
    """The same by a header; a pin nobody knows ends here."""
    for number, line in of.lines:
        header = {"name": PIN, "string_match": {"exact": f"v{number}"}}
        yield from _split(service, of, number, line, {**here, "headers": [header]}, rewrite, root)
    for endpoint, either in _words(of):
        route = _to(rewrite, cluster=cluster_of(service, endpoint))
        yield {"match": _with_header(here, PIN, either), "route": route, **_headers(root)}
    yield {"match": {**here, "headers": [{"name": PIN, "present_match": True}]}, "direct_response": {"status": 404}}


def _words(of: Routes) -> list[tuple[Endpoint, str]]:
    """Each endpoint that can be pinned, and an expression for all the words that mean it."""
    pinned: dict[Endpoint, list[str]] = {}
    for pin, endpoint in pins_of(of).items():
        pinned.setdefault(endpoint, []).append(re.escape(pin))
    return [(endpoint, "|".join(words)) for endpoint, words in pinned.items()]


def _ask(service: str, root: str, word: str, method: str) -> Document:
    """A question to the daemon; the header tells a dead daemon from a dead revision in the gateway's own answer."""
    is_method = {"name": ":method", "string_match": {"exact": method}}
    return {
        "match": {"path": f"{root}/-/{word}", "headers": [is_method]},
        "route": {"cluster": DAEMON, "prefix_rewrite": f"/{service}/-/{word}", "timeout": f"{SECONDS}s"},
        "request_headers_to_add": [_overwrite("x-branchline-ask", service)],
    }


def _split(
    service: str, of: Routes, number: int, line: Line, match: Document, rewrite: Document, prefix: str
) -> Iterator[Document]:
    """The routes of a line: to its one arm, or by the unit into the table."""
    header = of.group(line.holder)[0].unit_header if of.group(line.holder) else UNIT_HEADER
    unit = {} if header == UNIT_HEADER else {UNIT_HEADER: f"%REQ({header})%"}
    named: Document = {"name": route_name(service, number, line), **_headers(prefix, unit)}
    holder = _to(rewrite, cluster=arm_of(service, of, line, line.holder))
    if not line.experiment:
        yield {"match": match, "route": holder, **named}
        return
    assert sum(buckets for _, buckets in line.segments) == BUCKETS
    weights = [{"name": arm_of(service, of, line, arm), "weight": buckets} for arm, buckets in line.segments]
    salted = {"pattern": {"regex": "^"}, "substitution": f"{salt_of(line.experiment)}:"}
    by_unit = _to(
        rewrite,
        weighted_clusters={"clusters": weights, "use_hash_policy": True},
        hash_policy=[{"header": {"header_name": header, "regex_rewrite": salted}}],
        retry_policy=_FALL_BACK,
    )
    yield {"match": _with_header(match, header, _UNIT), "route": by_unit, **named}
    yield {"match": _with_header(match, header, ".+"), "direct_response": {"status": 400}}
    yield {
        "match": match,
        # Never asked: with its new unit the request matches the route above. If the script failed, nobody is exposed.
        "route": holder,
        "metadata": {"filter_metadata": {"envoy.filters.http.lua": {"unit_header": header}}},
        "typed_per_filter_config": _MINT,
    }


def route_name(service: str, number: int, line: Line) -> str:
    """What the log says of a split route: only these are exposures, and none of the words holds a slash."""
    return f"split/{service}/{number}/{line.experiment}/{line.table}"


def _to(rewrite: Document, **more: object) -> Document:
    """A route action with our limits; the service sees its own paths, without its name in front."""
    return {"timeout": f"{SECONDS}s", "retry_policy": _RETRY, **rewrite, **more}


def _with_header(match: Document, name: str, regex: str) -> Document:
    header = {"name": name, "string_match": {"safe_regex": {"regex": regex}}}
    return {**match, "headers": [*match.get("headers", ()), header]}


def _headers(prefix: str, more: Mapping[str, str] | None = None) -> Document:
    """What a service is told besides the request: what was taken off the path, if anything was."""
    told = {**({PREFIX_HEADER: prefix} if prefix else {}), **(more or {})}
    return {"request_headers_to_add": [_overwrite(*each) for each in told.items()]} if told else {}


def _overwrite(key: str, value: str) -> Document:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
