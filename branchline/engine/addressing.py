"""This file says how incarnations are addressed from outside: by version, branch, handle and commit; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from branchline.core.service import Service
from branchline.core.spec import UNIT, Unit
from branchline.core.world import PRODUCTION, STAGING, Running
from branchline.ports import Endpoint, Instance

TRIAL = "trial"  # the perimeter of a group that only a `run` wants


def endpoints_of(
    service: Service, instances: tuple[Instance, ...], versions: Mapping[str, str], unit: Unit = UNIT
) -> tuple[Endpoint, ...]:
    """How incarnations are addressed: a branch's name leads to its staging group, later to its production group.

    A staging group was started under a pre-release version; by its final one it is found as soon as there is one.
    Of a revision's incarnations the newest comes last, which a gateway takes for the first to be asked.
    """
    in_production = {i.revision for i in instances if i.perimeter == "production"}
    found = []
    for i in sorted(instances, key=lambda i: (i.version, i.perimeter, i.since, i.nonce)):
        words = [i.version]  # all that a group of a run is called, which nobody else may be sent to
        if i.perimeter != TRIAL:
            owner = service.owner(i.revision)
            branch = owner.branch if owner else ""
            handle = "" if branch.startswith("fix--") else branch.rpartition("--")[2]
            words += [versions.get(i.revision, ""), branch, handle, i.revision[:7], i.revision]
        split = i.perimeter == "production"
        hidden = i.perimeter == STAGING and i.revision in in_production
        pins = () if hidden else tuple(dict.fromkeys(word for word in words if word))
        found.append(
            Endpoint(
                i.revision,
                i.version,
                i.nonce,
                i.sockets,
                pins,
                split,
                i.health,
                i.nonce_aware,
                unit,
                i.requests,
            )
        )
    return tuple(found)


def leaders(instances: Iterable[Instance]) -> dict[tuple[str, str], Instance]:
    """Revision and perimeter -> the incarnation that serves for them: which lost the fewest, the newest of those."""
    serving = sorted((i for i in instances if i.state == "ready"), key=lambda i: (-i.lost, i.since))
    return {(i.revision, i.perimeter): i for i in serving}


def worn(groups: Iterable[Running], instances: Iterable[Instance], service: Service) -> Iterator[Running]:
    """The groups for which somebody serves who has lost processes, or is to have another number of them; sorted."""
    serving = leaders(instances)
    for group in sorted(groups):
        leader = serving.get((group.revision, group.perimeter))
        has = len(leader.sockets) if leader else 0
        if leader and (leader.lost or has != count_of(service, group.revision, group.perimeter, has)):
            yield group


def count_of(service: Service, revision: str, perimeter: str, declared: int) -> int:
    """How many processes a group is to have: a person's word is of production alone."""
    return service.instances_of(revision, declared) if perimeter == PRODUCTION else declared


def superseded(instances: Iterable[Instance], offered: Iterable[Endpoint]) -> tuple[Instance, ...]:
    """Those of ready incarnations in whose place a better one serves, known to the gateway already (I8)."""
    serving, known = leaders(instances), {endpoint.nonce for endpoint in offered}
    places = ((i, serving[i.revision, i.perimeter].nonce) for i in instances if i.perimeter != TRIAL)
    return tuple(i for i, leader in places if i.nonce != leader and leader in known)
