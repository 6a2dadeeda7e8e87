"""This file looks at the data of a commit: the built-in gates `data SOURCE`, which bad data does not pass (F47).

They are asked before anything is trained, and again with the other gates, so that they stand in the record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from branchline.core import gates as judged
from branchline.core.profile import Profile
from branchline.core.revision import GateResult, Result, Revision
from branchline.core.spec import Source, Spec
from branchline.engine.preparing import LOCK_FILE
from branchline.errors import DataGone
from branchline.ports import Ports

SAME = "as the incumbent's"


def data_gates(ports: Ports, spec: Spec, digests: Mapping[str, str], incumbent: Revision | None) -> list[GateResult]:
    """What the gates `data SOURCE` find, one for each source of the spec."""
    return [_judged(ports, source, digests[source.name], incumbent) for source in spec.data]


def spoiled(ports: Ports, spec: Spec, digests: Mapping[str, str], incumbent: Revision | None) -> list[GateResult]:
    """The gates that say why the data of a commit is not to be trained with."""
    return [each for each in data_gates(ports, spec, digests, incumbent) if each.result is not Result.PASS]


def only_data(ports: Ports, spec: Spec, one: str, other: str) -> bool:
    """Whether two commits of a service differ in their data and in nothing else that it is made of."""
    return ports.repository.changed(one, other, spec.closure) == (f"{spec.folder}/{LOCK_FILE}",)


def _judged(ports: Ports, source: Source, digest: str, incumbent: Revision | None) -> GateResult:
    before, why = _before(ports, source, digest, incumbent)
    if why == SAME:
        return GateResult(f"data {source.name}", Result.PASS, why)
    return judged.data(source, ports.sources.profile(source.name, digest, source.key), before, why)


def _before(ports: Ports, source: Source, digest: str, incumbent: Revision | None) -> tuple[Profile | None, str]:
    """What the incumbent was made of; else why there is nothing to be compared with.

    A source that says another place is another source: so does who means what is different in it.
    """
    if incumbent is None:
        return None, "the first version"
    pinned = dict(incumbent.data).get(source.name, "")
    places = {each["name"]: each["where"] for each in json.loads(incumbent.spec or "{}").get("data", ())}
    if not pinned or places.get(source.name) != source.where:
        return None, "not a source of the incumbent's"
    if pinned == digest:
        return None, SAME
    try:
        return ports.sources.profile(source.name, pinned), ""
    except DataGone:
        return None, f"the incumbent's version {pinned[:8]} is not known here any more"
