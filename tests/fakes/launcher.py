"""This file fakes the Launcher port: incarnations without processes, which can be told to fail, hang or die."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from branchline.core.spec import Limits
from branchline.errors import Fenced
from branchline.ports import Group, Instance, Stamp, Stray

ENDS = {
    "dies": "it ended by itself with exit 1 after 0.1 s",
    "late": "not ready after 60 s: nothing listens on the socket that BRANCHLINE_SOCKET names",
}


class FakeLauncher:
    """The Launcher port.

    `behave` says by revision (or "REVISION/PERIMETER") what becomes of a group: "well" (ready at the first look after
    its launch), "hangs" (starting for ever), "late" (failed at the first look), "dies" (failed at once).
    """

    def __init__(self) -> None:
        self.behave: dict[str, str] = {}
        self.groups: list[Group] = []  # every group that was started, in order
        self.stopped: list[str] = []
        self.known: dict[str, Instance] = {}
        self.marks: dict[str, Stamp] = {}
        self.printed: dict[str, list[str]] = {}
        self.strayed: list[Stray] = []
        self.lingers = False  # whether who is stopped has not ended yet: it drains
        self.now = 0.0

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse what was planned before the stamp."""
        self.marks[service] = max(stamp, self.marks.get(service, stamp))

    def launch(self, group: Group, stamp: Stamp) -> Instance:
        """Begin an incarnation unless there is one."""
        self._refuse_late(group.service, stamp)
        for instance in list(self.known.values()):
            same = (instance.service, instance.revision, instance.perimeter)
            whole = instance.state == "ready" and not instance.lost and len(instance.sockets) == group.instances
            known = whole or instance.state == "starting"
            if same == (group.service, group.revision, group.perimeter) and known:
                return instance
        self.groups.append(group)
        self.now += 1
        nonce = f"{len(self.groups):016x}"
        instance = Instance(
            service=group.service,
            revision=group.revision,
            version=group.version,
            perimeter=group.perimeter,
            nonce=nonce,
            sockets=tuple(f"/run/{nonce}.{number}.sock" for number in range(group.instances)),
            state="starting",
            pids=tuple(range(10_000 * len(self.groups), 10_000 * len(self.groups) + 2 * group.instances)),
            since=self.now,
            health=group.health,
            nonce_aware=group.nonce_aware,
            requests=group.requests,
            level="limits" if replace(group.limits, gpus=0) != Limits() else "",
        )
        self.printed[nonce] = [f"{group.service}@{group.version} starts"]
        self.known[nonce] = instance
        if self._behaviour(instance) == "dies":
            self.end(nonce, ENDS["dies"])
        return self.known[nonce]

    def instances(self, service: str = "") -> tuple[Instance, ...]:
        """Every incarnation; those that behave well are ready now."""
        for nonce, instance in list(self.known.items()):
            behaviour = self._behaviour(instance)
            if instance.state == "starting" and behaviour == "well":
                self.known[nonce] = replace(instance, state="ready")
            elif instance.state == "starting" and behaviour in ENDS:
                self.end(nonce, ENDS[behaviour])
        return tuple(each for each in list(self.known.values()) if service in ("", each.service))

    def stop(self, nonce: str, stamp: Stamp) -> None:
        """End one incarnation."""
        if nonce not in self.known:
            return
        self._refuse_late(self.known[nonce].service, stamp)
        if self.known[nonce].state != "stopped":
            self.stopped.append(nonce)
        pids = self.known[nonce].pids if self.lingers else ()
        self.known[nonce] = replace(self.known[nonce], state="stopped", pids=pids, tail="", lost=0)

    def log(self, nonce: str, lines: int = 20) -> str:
        """What it printed."""
        return "\n".join(self.printed.get(nonce, [])[-lines:])

    def told(self) -> Mapping[str, Stamp]:
        """The marks."""
        return dict(self.marks)

    def strays(self) -> tuple[Stray, ...]:
        """Those that a test has put there."""
        return tuple(self.strayed)

    def close(self) -> None:
        """There is nothing to end."""

    # What only a test asks

    def end(self, nonce: str, why: str = "it ended by itself with exit 137 after 9.0 s") -> None:
        """Let one incarnation die of itself."""
        tail = "\n".join([why, *self.printed[nonce]])
        self.known[nonce] = replace(self.known[nonce], state="failed", pids=(), tail=tail, lost=0)

    def lose(self, nonce: str, count: int = 1, why: str = "it ended by itself with exit 137 after 9.0 s") -> None:
        """Let some of an incarnation's processes die of themselves: who is starting, or loses all, has failed."""
        now = self.known[nonce]
        lost = now.lost + count
        if now.state == "starting" or lost >= len(now.sockets):
            self.end(nonce, why)
            return
        tail = "\n".join([why, *self.printed[nonce]])
        self.known[nonce] = replace(now, lost=lost, pids=now.pids[2 * count :], tail=tail)

    def recover(self, nonce: str) -> None:
        """Let those answer again that only were silent."""
        self.known[nonce] = replace(self.known[nonce], lost=0, tail="")

    def running(self) -> tuple[Instance, ...]:
        """Those that are starting or ready."""
        return tuple(instance for instance in self.known.values() if instance.state in ("starting", "ready"))

    def _behaviour(self, instance: Instance) -> str:
        known = self.behave.get(f"{instance.revision}/{instance.perimeter}")
        return known or self.behave.get(instance.revision, "well")

    def _refuse_late(self, service: str, stamp: Stamp) -> None:
        if stamp < self.marks.get(service, stamp):
            raise Fenced(service=service)
