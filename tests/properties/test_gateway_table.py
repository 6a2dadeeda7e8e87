"""This file shows what holds of the gateway's table and documents for any sequence of shifts (I26, F16)."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from branchline.adapters.envoy_documents import Places, cluster_texts, clusters
from branchline.adapters.envoy_routes import encoded_routes, routes
from branchline.adapters.envoy_table import Gateway, Routes, announced, from_json, offered, shifted, to_json
from branchline.adapters.envoy_wire import resource
from branchline.core.traffic import assigned, salt_of
from branchline.ports import Endpoint

ARMS = "abcd"
PLACES = Places(Path("/s/gateway"), Path("/r/envoy.sock"), Path("/r/ingest.sock"))
ENDPOINTS = [Endpoint(arm, f"1.{n}.0", f"n{arm}", (f"/r/{arm}.sock",)) for n, arm in enumerate(ARMS)]
KNOWN = offered(announced(Routes(), ENDPOINTS), ENDPOINTS)


@st.composite
def shares(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Up to four arms, whole percents that sum to 100."""
    arms = draw(st.permutations(ARMS))[: draw(st.integers(1, 4))]
    cuts = sorted(draw(st.sets(st.integers(1, 99), min_size=len(arms) - 1, max_size=len(arms) - 1)))
    return [(arm, to - start) for arm, start, to in zip(arms, [0, *cuts], [*cuts, 100], strict=True)]


@given(st.lists(shares(), min_size=1, max_size=8))
def test_whatever_is_shifted_the_weights_sum_and_the_clusters_are_there(moves: list[list[tuple[str, int]]]) -> None:
    of = KNOWN
    for generation, wanted in enumerate(moves, 1):
        before = of.line(1)
        of = shifted(of, "housing", 1, wanted, generation)
        line = of.line(1)
        assert line
        assert dict(line.shares) == dict(wanted)
        assert bool(line.experiment) == (len(wanted) > 1)
        if before and before.experiment and line.experiment:
            assert salt_of(line.experiment) == salt_of(before.experiment)
            assert (line.experiment == before.experiment) == (line.holder == before.holder)
            smaller = {arm for arm, share in before.shares if dict(wanted).get(arm, 0) < share}
            for unit in map(str, range(60)):
                one, other = (assigned(x.segments, unit, x.experiment) for x in (before, line))
                assert one == other or one in smaller
        gateway = Gateway(1, 1, {"housing": of})
        named = {cluster["name"] for cluster in clusters(gateway, PLACES)}
        assert used_by(routes(gateway)) <= named
        assert encoded_routes(gateway) == resource(routes(gateway)[0])
        assert [json.loads(text) for text in cluster_texts(gateway, PLACES).values()] == clusters(gateway, PLACES)
        assert from_json(json.loads(to_json(gateway))) == gateway


def used_by(document: object) -> set[str]:
    """Every cluster that a route table names; and every split in it sums to 10,000."""
    if isinstance(document, list):
        return set().union(*map(used_by, document))
    if not isinstance(document, dict):
        return set()
    found = {document["cluster"]} if "cluster" in document else set()
    if "weighted_clusters" in document:
        split = document["weighted_clusters"]["clusters"]
        assert sum(each["weight"] for each in split) == 10_000
        found |= {each["name"] for each in split}
    return found.union(*map(used_by, document.values()))
