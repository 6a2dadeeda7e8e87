"""This file renders the one route table: which request belongs to which service, line, pin and arm; pure.

Rules. Weights of a split always sum to 10,000 and stand in the order of the bucket table, the same cluster several
times if need be. A pin nobody knows is 404 and never falls into the split; only routes named `split/…` are exposures.
A request that brings its unit meets no script; one without is given a unit by the script and then matched again.
Envoy checks that clusters exist for routes of a host only, not for those found by path; so every service has both,
made by one function. What is taken off a path is told in `x-forwarded-prefix`: who pinned a revision by any word is
told the address by its version, for links that lead to the same revision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from branchline.adapters.envoy_documents import (
    DAEMON,
    LIMIT,
    LONGEST_SECONDS,
    PIN,
    QUIET_SECONDS,
    SECONDS,
    Document,
    arm_of,
    cluster_of,
    typed,
)
from branchline.adapters.envoy_table import SERVICES, Gateway, Line, Routes
from branchline.adapters.envoy_units import brought, header_of, sought, unusable
from branchline.adapters.envoy_wire import encoded, resource
from branchline.core.spec import UNIT, UNIT_HEADER, Requests, Unit
from branchline.core.traffic import BUCKETS, salt_of
from branchline.ports import Endpoint

PREFIX_HEADER = "x-forwarded-prefix"
LARGEST_ANSWER = 1 << 16
LONGEST_LABEL = 63  # of a host's name (RFC 1035)
# What was never begun may be tried again, whoever asks; what was begun, only where asking twice does nothing twice.
_NEVER_BEGUN = "connect-failure,refused-stream,reset-before-request"
_RETRY = {"retry_on": _NEVER_BEGUN, "num_retries": 1}
_ELSEWHERE = {
    **_RETRY,
    "num_retries": 2,
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": typed(
            "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", update_frequency=1
        ),
    },
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        }
    ],
    # Who has just died is asked least, and so drawn most: of three, five times in nine, 1 in 34 of six draws in a row.
    "host_selection_retry_max_attempts": 20,
}


def routes(gateway: Gateway) -> list[Document]:
    """The route table: a virtual host for each service, and one that finds services by the first word of the path."""
    served = _served(gateway)
    hosts = [host for name, of in served.items() for host in _hosts(name, of)]
    return [_table(hosts, {"map": dict(_by_path(name, of) for name, of in served.items())})]


def encoded_routes(gateway: Gateway) -> bytes:
    """The same as a resource of a file. One service changes at a time: what was encoded of the others is taken as it
    was.
    """
    parts = [_encoded(name, of) for name, of in _served(gateway).items()]
    table = _table([], b"".join(by_path for _, by_path in parts))
    last = encoded("RouteConfiguration", {"virtual_hosts": table["virtual_hosts"]})
    return resource({**table, "virtual_hosts": b"".join([*(by_host for by_host, _ in parts), last])})


@lru_cache(maxsize=SERVICES)
def _encoded(service: str, of: Routes) -> tuple[bytes, bytes]:
    """The routes of a service by host and by path, as they stand in the table."""
    by_host = encoded("RouteConfiguration", {"virtual_hosts": list(_hosts(service, of))})
    return by_host, encoded("MatchMap", {"map": dict([_by_path(service, of)])})


def _served(gateway: Gateway) -> dict[str, Routes]:
    return {name: of for name, of in sorted(gateway.services.items()) if of.known or of.lines}


def _by_path(service: str, of: Routes) -> tuple[str, Document]:
    found = typed("config.route.v3.RouteList", routes=list(_service(service, of, by_path=True)))
    return f"/{service}", {"action": {"name": "routes", "typed_config": found}}


def _table(hosts: Sequence[Document], by_word: Document | bytes) -> Document:
    """The table around what is of services."""
    paths: Document = {"name": "paths", "domains": ["*"], "retry_policy": _ELSEWHERE}
    if by_word not in (b"", {"map": {}}):
        path = typed("type.matcher.v3.HttpRequestHeaderMatchInput", header_name=":path")
        tree = {"input": {"name": "path", "typed_config": path}, "prefix_match_map": by_word}
        paths["matcher"] = {"matcher_tree": tree}
    revision = {"key": "x-branchline-revision", "value": "%METADATA(UPSTREAM_HOST:branchline:revision)%"}
    return typed(
        "config.route.v3.RouteConfiguration",
        name="branchline",
        validate_clusters=True,
        ignore_port_in_host_matching=True,
        max_direct_response_body_size_bytes=LARGEST_ANSWER,
        response_headers_to_add=[{"header": revision, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        virtual_hosts=[*hosts, paths],
    )


def _hosts(service: str, of: Routes) -> Iterator[Document]:
    """`SERVICE.…`, which is the newest line's too, and a host in front of it for each other line and each revision that
    can be pinned.
    """
    under = f"{service}.localhost" if service.isdigit() else f"{service}.*"  # 127.* is an address
    retries = {"retry_policy": _ELSEWHERE if _has_elsewhere(of) else _RETRY}
    everything: Document = {"prefix": "/"}
    lines = {f"v{number}": line for number, line in of.lines}
    plain = [under, *(f"{word}.{under}" for word in [*lines][-1:])]
    yield {"name": service, "domains": plain, "routes": list(_service(service, of, by_path=False)), **retries}
    for word, line in [*lines.items()][:-1]:
        split = _split(service, of, int(word[1:]), line, everything, {}, "")
        found = [*_refused(of, "/"), *split]
        yield {"name": f"{service}@{word}", "domains": [f"{word}.{under}"], "routes": found, **retries}
    pinned: dict[Endpoint, list[str]] = {}
    for label, endpoint in {_label(pin): endpoint for pin, endpoint in pins_of(of).items()}.items():
        if label not in lines and len(label) <= LONGEST_LABEL:
            pinned.setdefault(endpoint, []).append(f"{label}.{under}")
    for endpoint, domains in pinned.items():
        name, route = cluster_of(service, endpoint), _pinned(service, endpoint, everything, {}, "")
        again = _ELSEWHERE if len(endpoint.sockets) > 1 else _RETRY  # one process has nowhere else
        yield {"name": name, "domains": domains, "routes": [route], "retry_policy": again}


def _label(pin: str) -> str:
    """A word that a request may pin by, as it stands in a host's name: 1-1-0 for 1.1.0."""
    return re.sub("[^a-z0-9-]", "-", pin.lower())


def pins_of(routes: Routes) -> dict[str, Endpoint]:
    """Every word a request may pin by and where it leads: production before staging, the newest before the older."""
    found: dict[str, Endpoint] = {}
    warm = [k.endpoint for k in routes.known if k.warm]
    for endpoint in sorted(warm, key=lambda e: e.split):
        for pin in (endpoint.revision, endpoint.revision[:7], endpoint.version, *endpoint.pins):
            found[pin] = endpoint
    return found


def _has_elsewhere(of: Routes) -> bool:
    """Whether a request that one process did not take can be given to another."""
    return any(line.experiment for _, line in of.lines) or any(len(k.endpoint.sockets) > 1 for k in of.known)


def _service(service: str, of: Routes, *, by_path: bool) -> Iterator[Document]:
    """The routes of one service, the first that matches wins: what is asked most stands first, and costs no regex."""
    root = f"/{service}" if by_path else ""
    yield {**_asked(root, "v", "GET"), **_answer(service, of)}
    yield {**_asked(root, "outcomes", "POST"), **_daemon(service)}
    yield from _refused(of, root or "/")
    whole = {"prefix_rewrite": "/"} if by_path else {}
    if of.lines:  # the newest line has the plain address
        newest = {"safe_regex": {"regex": f"(?:v{of.lines[-1][0]})?"}}
        here = [{"name": PIN, "string_match": newest, "treat_missing_header_as_empty": True}]
        yield from _split(service, of, *of.lines[-1], {"prefix": f"{root}/", "headers": here}, whole, root)
    if by_path:
        rewrite = {"regex_rewrite": {"pattern": {"regex": f"^/{service}(?:@[^/]+)?/?"}, "substitution": "/"}}
        yield from _addresses(service, of, rewrite)
        yield from _pins(service, of, {"path_separated_prefix": root}, rewrite, root)
        if of.lines:
            yield from _split(service, of, *of.lines[-1], {"path": root}, whole, root)
    else:
        yield from _pins(service, of, {"prefix": "/"}, {}, root)


def _refused(of: Routes, under: str) -> Iterator[Document]:
    """Who names more than one unit is refused, at every address: asked once, for it is what costs Envoy the most."""
    units = {_unit(of, line) for _, line in of.lines if line.experiment}
    for header in sorted(unit.name for unit in units if unit.kind == "header"):
        yield {"match": {"prefix": under, "headers": [unusable(header)]}, "direct_response": {"status": 400}}


def _unit(of: Routes, line: Line) -> Unit:
    """Where the units of a line stand: as its holder says."""
    holder = of.group(line.holder)
    return holder[0].unit if holder else UNIT


def _addresses(service: str, of: Routes, rewrite: Document) -> Iterator[Document]:
    """`/SERVICE@REF/`: lines first, for a branch named like one must not take its address."""
    for number, line in of.lines:
        address = f"/{service}@v{number}"
        yield from _split(service, of, number, line, {"path_separated_prefix": address}, rewrite, address)
    for endpoint, either in _words(of):
        match = {"safe_regex": {"regex": f"/{service}@(?:{either})(?:/.*)?"}}
        yield _pinned(service, endpoint, match, rewrite, f"/{service}@{endpoint.version}")


def _pins(service: str, of: Routes, here: Document, rewrite: Document, root: str) -> Iterator[Document]:
    """The same by a header, but for the newest line's, which asks for the plain address; one nobody knows ends here."""
    for number, line in of.lines[:-1]:
        header = {"name": PIN, "string_match": {"exact": f"v{number}"}}
        yield from _split(service, of, number, line, {**here, "headers": [header]}, rewrite, root)
    for endpoint, either in _words(of):
        yield _pinned(service, endpoint, _with_header(here, PIN, either), rewrite, root)
    unknown: list[Document] = [{"name": PIN, "present_match": True}]
    if of.lines:
        unknown.append({"name": PIN, "string_match": {"exact": f"v{of.lines[-1][0]}"}, "invert_match": True})
    yield {"match": {**here, "headers": unknown}, "direct_response": {"status": 404}}


def _words(of: Routes) -> list[tuple[Endpoint, str]]:
    """Each endpoint that can be pinned, and an expression for all the words that mean it."""
    pinned: dict[Endpoint, list[str]] = {}
    lines = {f"v{number}" for number, _ in of.lines}  # a branch named like one does not take its address
    for pin, endpoint in pins_of(of).items():
        if pin not in lines:
            pinned.setdefault(endpoint, []).append(re.escape(pin))
    return [(endpoint, "|".join(words)) for endpoint, words in pinned.items()]


def _pinned(service: str, endpoint: Endpoint, match: Document, rewrite: Document, prefix: str) -> Document:
    """The route to one revision, by whatever it was asked for."""
    route, more = _to(rewrite, endpoint.requests, cluster=cluster_of(service, endpoint)), _size(endpoint.requests)
    return {"match": match, "route": route, **_headers(prefix), **_unsaid(endpoint.unit), **more}


def _asked(root: str, word: str, method: str) -> Document:
    """What matches a question about the service that is none to it."""
    is_method = {"name": ":method", "string_match": {"exact": method}}
    return {"match": {"path": f"{root}/-/{word}", "headers": [is_method]}}


def _daemon(service: str) -> Document:
    """Outcomes go to the daemon; the header tells a dead one from a dead revision in the gateway's own answer."""
    return {
        "route": {"cluster": DAEMON, "prefix_rewrite": f"/{service}/-/outcomes", "timeout": f"{SECONDS}s"},
        "request_headers_to_add": [_overwrite("x-branchline-ask", service)],
    }


def _answer(service: str, of: Routes) -> Document:
    """What the gateway itself answers of a service: who serves it, with which share of which line."""
    versions = {each.endpoint.revision: each.endpoint.version for each in of.known if each.endpoint.split}
    rows = [
        {
            "revision": f"{service}@{versions.get(arm, arm[:7])}",
            "version": versions.get(arm, ""),
            "commit": arm,
            "share": share,
            "line": number,
        }
        for number, line in of.lines
        for arm, share in line.shares
    ]
    told = {"schema": "branchline.service/1", "service": service, "revisions": rows}
    return {"direct_response": {"status": 200, "body": {"inline_string": json.dumps(told, separators=(",", ":"))}}}


def _split(
    service: str, of: Routes, number: int, line: Line, match: Document, rewrite: Document, prefix: str
) -> Iterator[Document]:
    """The routes of a line: to its one arm, or by the unit into the table."""
    unit = _unit(of, line)
    header, asked = header_of(unit), _requests(of, line)
    told = {} if header == UNIT_HEADER else {UNIT_HEADER: f"%REQ({header})%"}
    named: Document = {"name": route_name(service, number, line), **_headers(prefix, told), **_size(asked)}
    holder = _to(rewrite, asked, cluster=arm_of(service, of, line, line.holder))
    if not line.experiment:
        yield {"match": match, "route": holder, **named, **_unsaid(unit)}
        return
    assert sum(buckets for _, buckets in line.segments) == BUCKETS
    weights = [{"name": arm_of(service, of, line, arm), "weight": buckets} for arm, buckets in line.segments]
    salted = {"pattern": {"regex": "^"}, "substitution": f"{salt_of(line.experiment)}:"}
    by_unit = _to(
        rewrite,
        asked,
        weighted_clusters={"clusters": weights, "use_hash_policy": True},
        hash_policy=[{"header": {"header_name": header, "regex_rewrite": salted}}],
    )
    yield {"match": _both(match, brought(unit)), "route": by_unit, **named}
    # Never asked: with its unit found the request matches the first route. If the script failed, nobody is exposed.
    looks, free = sought(unit, prefix), _size(asked).get("typed_per_filter_config", {})
    looks["typed_per_filter_config"] |= free
    yield {"match": match, "route": holder, **looks, **_unsaid(unit)}


def route_name(service: str, number: int, line: Line) -> str:
    """What the log says of a split route: only these are exposures, and none of the words holds a slash."""
    return f"split/{service}/{number}/{line.experiment}/{line.table}"


def _requests(of: Routes, line: Line) -> Requests:
    """How requests of a line are treated: as its holder says, and twice only if every arm says that one may."""
    holder = of.group(line.holder)
    ends = [endpoint for arm, _ in line.shares for endpoint in of.group(arm)]
    is_idempotent = bool(ends) and all(endpoint.requests.idempotent for endpoint in ends)
    return replace(holder[0].requests if holder else Requests(), idempotent=is_idempotent)


def _to(rewrite: Document, asked: Requests, **more: object) -> Document:
    """A route action; the service sees its own paths, without its name in front."""
    action: Document = {"timeout": _seconds(asked.timeout), **rewrite, **more}
    if not asked.timeout or asked.timeout > QUIET_SECONDS:
        action["idle_timeout"] = _seconds(asked.timeout)
        longest = asked.timeout and asked.timeout + LONGEST_SECONDS
        action["max_stream_duration"] = {"max_stream_duration": _seconds(longest)}
    if asked.idempotent:
        per_try = {"per_try_timeout": _seconds(asked.try_timeout)} if asked.try_timeout else {}
        action["retry_policy"] = {**_ELSEWHERE, "retry_on": f"{_NEVER_BEGUN},reset", **per_try}
    return action


def _size(asked: Requests) -> Document:
    """What may take any time may be of any size: a stream has none before it is over."""
    off = {LIMIT: typed("config.route.v3.FilterConfig", disabled=True)}
    return {} if asked.timeout else {"typed_per_filter_config": off}


def _seconds(seconds: float) -> str:
    """A time as Envoy reads it."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def _both(match: Document, other: Document) -> Document:
    """What matches what both do."""
    return {**match, **other, "headers": [*match.get("headers", ()), *other.get("headers", ())]}


def _with_header(match: Document, name: str, regex: str) -> Document:
    header = {"name": name, "string_match": {"safe_regex": {"regex": regex}}}
    return {**match, "headers": [*match.get("headers", ()), header]}


def _headers(prefix: str, more: Mapping[str, str] | None = None) -> Document:
    """What a service is told besides the request: what was taken off the path, if anything was."""
    told = {**({PREFIX_HEADER: prefix} if prefix else {}), **(more or {})}
    return {"request_headers_to_add": [_overwrite(*each) for each in told.items()]} if told else {}


def _unsaid(unit: Unit) -> Document:
    """What a client says in the unit's header is not passed on where the unit is declared to stand elsewhere; before
    anything is added.
    """
    return {} if unit == UNIT else {"request_headers_to_remove": [UNIT_HEADER]}


def _overwrite(key: str, value: str) -> Document:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
