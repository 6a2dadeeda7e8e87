"""This file says whether an instance group may be started: whether it is time to try, and whether it fits (1.21).

What counts is what the service files declare, not what is used now; who declares nothing counts nothing. Rules:

- what serves already is never refused: neither its restart nor what replaces it;
- what does not fit is refused before anything of it is started, and says with which sum;
- what only does not fit beside something that is about to end waits for that end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from branchline.core.service import Service
from branchline.core.spec import Limits
from branchline.core.world import Running
from branchline.engine.addressing import TRIAL
from branchline.engine.budgeting import Budget
from branchline.engine.observing import Sight
from branchline.engine.preparing import spec_at
from branchline.errors import BranchlineError
from branchline.ports import Group, Instance, Ports


@dataclass(slots=True)
class Attempts:
    """How often something failed, why it did last, and when it may be tried again."""

    failed: int = 0
    again: float = 0.0
    why: str = ""

    def fail(self, now: float, why: str) -> None:
        """Note that it failed at this moment: it may be tried again after a while, twice as long each time."""
        self.failed += 1
        self.again = now + min(30.0, 0.25 * 2 ** min(self.failed, 8))
        self.why = why

    def wait(self, now: float, why: str) -> None:
        """Note what it waits for, which is no failure: it may be tried again soon."""
        self.again, self.why = now + 0.5, why


class Tenant(NamedTuple):
    """A group that runs or drains, and what it may use; whether it is about to end."""

    name: str
    limits: Limits
    leaves: bool = False


class Refusal(NamedTuple):
    """Why a group is not started, and whether that will pass by itself."""

    why: str
    passes: bool


def serves(service: Service, sight: Sight, revision: str) -> bool:
    """Whether a revision serves already: as an incumbent, now or once, or as an arm."""
    incumbent = any(revision in line.history for line in service.lines)
    return incumbent or any(revision in dict(shares) for _, shares in sight.world.routes)


def refusal(ports: Ports, group: Group, wanted: Set[Running], there: Budget) -> Refusal | None:
    """Why a group does not fit into what is there, beside what runs; None when it does. `wanted` is of its service."""
    if not any((group.limits.cores, group.limits.memory, group.limits.gpus)):
        return None
    found = tuple(tenants(ports, group, wanted))
    lasting = excess(group, [each for each in found if not each.leaves], there)
    why = lasting or excess(group, found, there)
    return Refusal(why, passes=not lasting) if why else None


def tenants(ports: Ports, group: Group, wanted: Set[Running]) -> Iterable[Tenant]:
    """Every group that runs or drains, by what its own service file declares."""
    groups = {(each.revision, each.perimeter) for each in wanted}
    for instance in ports.launcher.instances():
        if instance.state in ("starting", "ready") or instance.pids:
            unwanted = instance.service == group.service and of(instance) not in groups
            leaves = unwanted or instance.perimeter == TRIAL or instance.state not in ("starting", "ready")
            yield Tenant(f"{instance.service}@{instance.version}", limits_of(ports, instance), leaves)


def of(instance: Instance) -> tuple[str, str]:
    """Revision and perimeter."""
    return instance.revision, instance.perimeter


def limits_of(ports: Ports, instance: Instance) -> Limits:
    """What an instance's service file declares; nothing when it cannot be read any more."""
    try:
        return spec_at(ports, instance.service, instance.revision).serving.limits
    except BranchlineError:
        return Limits()


def excess(group: Group, others: Iterable[Tenant], there: Budget) -> str:
    """The first sum that is more than there is, in words; '' when all fit."""
    asked, taken = amounts(group.limits), [(each.name, amounts(each.limits)) for each in others]
    has = amounts(Limits(there.cores, there.memory, gpus=len(there.gpus)))
    for what, wanted in asked.items():
        held = {name: amount for name, each in taken if (amount := each[what])}
        whole = wanted + sum(each[what] for _, each in taken)
        if wanted and whole > has[what]:
            beside = ", ".join(f"{name} {amount:g}" for name, amount in held.items())
            sum_of = f"; with {beside} that is {whole:g}" if beside else ""
            return f"it asks for {wanted:g} {what}{sum_of}, and there are {has[what]:g} here"
    return ""


def amounts(limits: Limits) -> Mapping[str, float]:
    """What is shared, by the word that it is told with."""
    return {"cores": limits.cores, "MB of memory": limits.memory / 1e6, "GPUs": limits.gpus}
