"""This file is the Gauges port on Envoy's statistics: one filtered question for all revisions.

Rules. A request is counted where it was routed to, by the cluster of an incarnation or of an arm; both carry service
and version in their statistic's name, and are summed. Counters vanish with their cluster and begin anew with the
gateway: what they had is kept, so that a total never goes back. Times are merged by Envoy every five seconds, counts at
once. Envoy answers with its first thread, which also takes new routes: nothing is asked that is not used.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from branchline.adapters.envoy import DOCUMENTS, Envoy
from branchline.core.rates import Total, is_less, joined
from branchline.errors import GatewayDown
from branchline.ports import Key

_CLUSTER = r"cluster[.]([a-z0-9-]+__[0-9A-Za-z_-]+)[.]upstream_rq_([1-5]xx|active|time)"
_GATEWAY = {
    **{
        f"{stem}.update_{how}": f"rejected {kind}"
        for kind, stem in DOCUMENTS.items()
        for how in ("rejected", "failure")
    },
    "http.gateway.downstream_cx_active": "connections",
    "server.memory_allocated": "memory",
    **{f"http.gateway.downstream_rq_{number}xx": f"{number}xx" for number in range(1, 6)},
}
_WANTED = "|".join((_CLUSTER, *(name.replace(".", "[.]") for name in _GATEWAY)))
QUESTION = f"/stats?usedonly&format=json&histogram_buckets=detailed&filter={quote(f'^({_WANTED})$', safe='')}"


class EnvoyGauges:
    """The counters of one gateway; `envoy` may be shared."""

    def __init__(self, envoy: Envoy) -> None:
        self._envoy = envoy
        self._lock = threading.Lock()
        self._boot = ""
        self._known: dict[str, Total] = {}  # by cluster, as it was last seen
        self._gone: dict[Key, Total] = {}  # of clusters and of gateways that are no more
        self._gateway = dict.fromkeys(_GATEWAY.values(), 0)

    def read(self) -> Mapping[Key, Total]:
        """The totals of each revision; see the port."""
        with self._lock:
            self._look()
            found: dict[Key, list[Total]] = {key: [total] for key, total in self._gone.items()}
            for cluster, total in self._known.items():
                found.setdefault(key_of(cluster), []).append(total)
        return {key: joined(totals) for key, totals in found.items()}

    def gateway(self) -> Mapping[str, int]:
        """What the gateway itself had counted; see the port. A gateway that was started anew begins anew."""
        with self._lock:
            return dict(self._gateway)

    def _look(self) -> None:
        boot = self._envoy.boot
        try:
            told = json.loads(self._envoy.ask(QUESTION))
        except (GatewayDown, ValueError):
            return
        if boot != self._envoy.boot:
            return  # it was started anew meanwhile, and nobody knows which of the two has answered
        now = totals_of(told["stats"])
        for cluster, before in self._known.items():
            after = now.get(cluster)
            if after is None or boot != self._boot or is_less(after, before):
                key = key_of(cluster)
                self._gone[key] = joined((self._gone.get(key, Total()), Total(before.codes, before.times)))
        self._gateway = dict.fromkeys(_GATEWAY.values(), 0)
        for each in told["stats"]:
            if word := _GATEWAY.get(each.get("name", "")):
                self._gateway[word] += int(each["value"])
        self._boot, self._known = boot, now


def key_of(cluster: str) -> Key:
    """Service and version of the statistics' name of a cluster, in which dots are underscores."""
    service, version, _ = cluster.split("__", 2)
    return service, version.replace("_", ".")


def totals_of(statistics: list[dict[str, Any]]) -> dict[str, Total]:
    """The totals of each cluster that was ever asked."""
    codes: dict[str, dict[str, int]] = {}
    active: dict[str, int] = {}
    times: dict[str, dict[tuple[float, float], int]] = {}
    for each in statistics:
        if found := re.fullmatch(_CLUSTER, each.get("name", "")):
            into = active if found[2] == "active" else codes.setdefault(found[1], {})
            into[found[1] if found[2] == "active" else found[2]] = int(each["value"])
        for histogram in each.get("histograms", {}).get("details", ()):
            if found := re.fullmatch(_CLUSTER, histogram["name"]):
                bins = histogram["totals"]
                times[found[1]] = {(each["lower_bound"], each["width"]): int(each["count"]) for each in bins}
    return {
        cluster: Total(codes.get(cluster, {}), times.get(cluster, {}), active.get(cluster, 0))
        for cluster in sorted({*codes, *active, *times})
    }
