"""This file looks at what really is, not asking the engine, and says what of the invariants I1 to I11 does not hold.

It checks each recorded event and each effect as it happens, some things after every deed, and the rest at rest. What
is broken is kept in `broken` and raised after the deed: the engine would survive an error that a port raises. The law
itself is walked elsewhere (`tests.explorer`); what is asked of it here is only what it wants.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from branchline.core.lifecycle import ENDED, SERVING, Phase
from branchline.core.records import event_from_json
from branchline.core.service import Service
from branchline.core.world import FOREIGN, PRODUCTION, STAGING, Delete, Running, Stop, World, desired
from branchline.engine.controlling import Controller
from branchline.errors import BranchlineError, UnknownService
from branchline.ports import Instance, Ports
from tests import invariants
from tests.invariants import Broken
from tests.subject import SERVICE

if TYPE_CHECKING:
    from tests.deeds import Place

OLD_TRUNK = f"major--{SERVICE}--"
EFFECTS = {
    ("router", "shift"), ("launcher", "stop"), ("writer", "conclude"), ("writer", "delete"), ("writer", "absorb"),
    ("writer", "drop"), ("ledger", "record"),
}  # fmt: skip


class Look:
    """What was seen at one moment."""

    def __init__(self, witness: Witness) -> None:
        self.service = witness.service()
        self.wanted = desired(self.service)
        self.instances = witness.instances()
        self.world = witness.world(self.service, self.wanted, self.instances)
        self.heads = dict(witness.git.heads())


class Witness:
    """Looks at git, processes, routes and the ledger of one service."""

    def __init__(self, place: Place) -> None:
        self.place, self.git = place, place.git
        self.broken: list[str] = []
        self.effects = 0
        self.last: list[str] = []
        self.judged: set[str] = set()  # what has held the trunk's arm of a line: who concludes, and incumbents

    @property
    def ports(self) -> Ports:
        """The bare ports, as they are now."""
        return self.place.ports

    def need(self, holds: object, why: str) -> None:
        """Keep what does not hold."""
        if not holds:
            self.broken.append(why)

    # ------------------------------------------------------------------------------------------ looking

    def service(self) -> Service:
        """The recorded state."""
        try:
            return self.ports.ledger.service(SERVICE)
        except UnknownService:
            return Service(SERVICE, default="main")

    def look(self) -> Look:
        """See all there is."""
        return Look(self)

    def instances(self) -> tuple[Instance, ...]:
        """Every process group."""
        return self.ports.launcher.instances(SERVICE)

    def routes(self) -> Mapping[int, tuple[tuple[str, int], ...]]:
        """What the gateway was given, by line."""
        shown = self.ports.router.survey().routes.get(SERVICE, {})
        return {line: each.shares for line, each in shown.items() if each.shares}

    def world(self, service: Service, wanted: World, instances: Collection[Instance]) -> World:
        """Everything in the words of the law."""
        lines = {each.revision: each.line for each in service.candidates}
        lines |= {revision: line.major for line in service.lines for revision in line.history}
        ready = [each for each in instances if each.state == "ready" and each.perimeter in (PRODUCTION, STAGING)]
        heads = self.git.heads()
        known = {each.branch for each in service.candidates}
        absorbed = {
            (base, fix) for base, fix in wanted.absorbed if base in heads and fix in self.git.ancestry(heads[base])
        }
        return World(
            trunks=tuple(sorted(self._trunks(service, wanted, heads))),
            routes=tuple(sorted(self.routes().items())),
            running=frozenset(Running(each.revision, each.perimeter, lines.get(each.revision, 1)) for each in ready),
            absorbed=frozenset(absorbed),
            branches=frozenset((branch, tip) for branch, tip in heads.items() if branch in known),
        )

    def _trunks(self, service: Service, wanted: World, heads: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        revisions = [revision for line in service.lines for revision in reversed(line.history)]
        revisions += [each.revision for each in service.candidates]
        trees = {revision: self.tree(revision) for revision in revisions}
        for ref in (ref for ref in heads if ref in dict(wanted.trunks) or ref.startswith(OLD_TRUNK)):
            here, hoped = self.tree(heads[ref]), dict(wanted.trunks).get(ref, "")
            if not here:
                continue
            same = [revision for revision, tree in trees.items() if tree == here]
            if hoped in same:
                yield ref, hoped
            elif same or service.lines:
                yield ref, (same or [FOREIGN])[0]

    def tree(self, commit: str) -> tuple[tuple[str, str], ...]:
        """The texts of the service's folder at a commit."""
        found = self.git.texts(commit).items()
        return tuple(sorted((path, text) for path, text in found if path.startswith(f"{SERVICE}/")))

    def strange(self) -> list[tuple[str, str]]:
        """Trunks that nobody knows any more, or that lost the service, each with the revision it should show."""
        look = self.look()
        taken = {each.line for each in look.service.candidates if each.phase is Phase.CONCLUDING and not each.base}
        if taken and not any(each.trouble for each in look.service.candidates):
            return []
        incumbents = {line.incumbent: line.major for line in look.service.lines}
        trunks = dict(look.world.trunks)
        found = []
        for ref, revision in look.wanted.trunks:
            line = next((each for each in look.service.lines if revision in each.history), None)
            before = revision if line else None
            if before is None:
                major = next(each.line for each in look.service.candidates if each.revision == revision)
                before = look.service.line(major).incumbent
            if before is None and trunks.get(ref) == FOREIGN and incumbents:
                before = look.service.lines[-1].incumbent  # a new major takes the trunk over from the newest line
            if ref in look.heads and trunks.get(ref) in (FOREIGN, None) and before and incumbents:
                found.append((ref, before))
        return found

    def unwell(self, controller: Controller) -> bool:
        """Whether something is wanted and is not there, though nothing is done: it may need time."""
        look = self.look()
        there = look.world.running == look.wanted.running and look.world.routes == look.wanted.routes
        worked_on = any(each.phase in (Phase.BUILDING, Phase.EVALUATING) for each in look.service.candidates)
        return not there or worked_on or bool(self.drifts(controller))

    def drifts(self, controller: Controller) -> list[str]:
        """What parity tells, but that a branch is refused: that one only a person ends."""
        told = controller.parity.drifts([SERVICE]) if self.service().generation else []
        return [each.what for each in told if each.drift != "refused branch"]

    # ------------------------------------------------------------------------------------------ effects

    def check(self, word: str, args: tuple[Any, ...], before: Look) -> None:
        """What must hold of an effect that has just happened, by what was there before it."""
        try:
            getattr(self, f"_{word}")(before, *args)
        except Broken as broken:
            self.need(False, f"{word}: {broken}")

    def _effect(self, told: str) -> None:
        self.effects += 1
        self.last = [*self.last[-9:], told]

    def _record(self, before: Look, after: Service, event: Mapping[str, Any]) -> None:
        told = event_from_json({key: value for key, value in event.items() if key != "left_behind"})
        self._effect(f"record {told}")
        wanted = desired(after)
        self.judged |= {revision for _, revision in wanted.trunks}
        invariants.check_event(before.service, told, after)
        invariants.check_service(after, wanted)

    def _shift(self, before: Look, service: str, line: int, shares: Any, stamp: object) -> None:
        self._effect(f"shift {line} {shares}")
        invariants.need(not shares or sum(share for _, share in shares) == 100, "shares do not sum to 100 (I4)")
        invariants.need(all(type(share) is int and share > 0 for _, share in shares), "a share that is none (I4)")
        up = {each.revision for each in before.world.running if each.perimeter == PRODUCTION}
        invariants.need(all(revision in up for revision, _ in shares), "routed what does not run (I5)")
        self._gated(revision for revision, _ in shares)

    def _gated(self, revisions: Any) -> None:
        for revision in revisions:
            results = self.ports.catalog.gates(SERVICE, revision)
            passed = [each for each in results if each.result.value == "fail"]
            invariants.need(results and not passed, "traffic for who has not passed its gates (I9)")

    def _stop(self, before: Look, nonce: str, stamp: object) -> None:
        instance = next((each for each in before.instances if each.nonce == nonce), None)
        if instance is None or instance.state != "ready" or instance.perimeter != PRODUCTION:
            return
        self._effect(f"stop {instance.version}")
        twins = [each for each in before.instances if each.revision == instance.revision and each.nonce != nonce]
        if any(each.state == "ready" and each.perimeter == PRODUCTION for each in twins):
            return
        line = next(each.line for each in before.world.running if each.revision == instance.revision)
        invariants.check_step(before.world, Stop(line, instance.revision, PRODUCTION), before.wanted)

    def _conclude(self, before: Look, change: Any) -> None:
        heads = self.git.heads()
        if heads.get(change.ref) == before.heads.get(change.ref):
            return  # it was there already
        self._effect(f"write {change.ref} {change.revision[:7]}")
        invariants.need(self.tree(heads[change.ref]) == self.tree(change.revision), "merged another tree (I3)")
        invariants.need(change.revision in self.judged, "merged what nobody has judged (I2)")
        routed = {shares[0][0] for _, shares in before.world.routes}
        trunks = dict(before.world.trunks)
        there = change.revision in trunks.values()
        invariants.need(there or change.revision in routed, "recorded what does not serve")
        invariants.need(trunks.get(change.ref) != FOREIGN, "wrote over a tree that nobody knows")

    def _delete(self, before: Look, service: str, branch: str, tip: str, stamp: object) -> None:
        if branch in before.heads:
            self._effect(f"delete {branch}")
            invariants.check_delete(before.service, Delete(1, branch, tip), before.world, before.wanted)
            invariants.need(before.heads[branch] == tip, "deleted a tip nobody saw")

    def _absorb(self, before: Look, service: str, branch: str, tip: str, revision: str, stamp: object) -> None:
        if self.git.tip(branch) != before.heads.get(branch):
            self._effect(f"absorb {revision[:7]} into {branch}")
            routed = {each for _, shares in before.world.routes for each, _ in shares}
            invariants.need(revision in routed, "absorbed what does not serve")

    def _drop(self, before: Look, service: str, ref: str, stamp: object) -> None:
        if ref in before.heads:
            self._effect(f"drop {ref}")
            invariants.need(ref.startswith(OLD_TRUNK), "dropped what is no older trunk")

    # ------------------------------------------------------------------------------------------ always

    def always(self, troubles: Mapping[tuple[str, str], str]) -> None:
        """What must hold after every deed, whatever is broken; raises Broken with all that does not."""
        for key, text in troubles.items():
            self.need(not text.startswith("BL000"), f"{key}: {text}")
        for line, shares in self.routes().items():
            self.need(sum(share for _, share in shares) == 100, f"the shares of {line} do not sum to 100 (I4)")
        self._merged_once()
        if self.broken:
            raise Broken("; ".join(self.broken))

    def _merged_once(self) -> None:
        """Each conclusion is on a trunk once, with the judged tree, and nothing else is (I2, I3).

        Once more only where somebody wrote something else there by hand meanwhile: then what serves is put back.
        """
        for ref, tip in self.git.heads().items():
            if ref != "main" and not ref.startswith(OLD_TRUNK):
                continue
            seen: dict[str, bool] = {}  # event -> whether the trunk showed something else since
            for commit in self._first_parents(tip):
                said = dict(row.split(": ", 1) for row in self.git.message(commit).splitlines() if ": " in row)
                event, revision = said.get("Branchline-Event", ""), said.get("Branchline-Revision", "")
                if event.startswith(f"{SERVICE}/"):
                    self.need(seen.get(event, True), f"{event} was merged twice on {ref} (I2)")
                    self.need(revision in self.judged, f"{event} merged what nobody has judged (I2)")
                    self.need(self.tree(commit) == self.tree(revision), f"{event} merged another tree (I3)")
                    seen[event] = False
                else:
                    seen = dict.fromkeys(seen, True)

    def _first_parents(self, tip: str) -> Iterator[str]:
        while tip:
            yield tip
            tip = (*self.git.parents(tip), "")[0]

    def check_gone(self, revision: str) -> None:
        """Who was aborted has no traffic, if there is anything else to serve (I10, I11)."""
        look = self.look()
        up = {each.revision for each in look.world.running if each.perimeter == PRODUCTION}
        for line, shares in look.world.routes:
            held = dict(look.wanted.routes).get(line, ())
            serves = not held or held[0][0] in up
            self.need(revision not in dict(shares) or not serves, f"{revision[:7]} was aborted and has traffic (I11)")

    # ------------------------------------------------------------------------------------------ at rest

    def rest(self, controller: Controller) -> None:
        """What must hold when all is well and nothing is left to do: git, production and the record agree (I1, I6)."""
        look = self.look()
        try:
            invariants.check_rest(look.service, look.world, look.wanted)
        except Broken as broken:
            self.need(False, f"{broken}; troubles: {sorted(controller.troubles.values())}")
        drifts = self.drifts(controller)
        self.need(not drifts, f"at rest, but parity says {drifts}")
        for each in look.service.candidates:
            routed = any(each.revision in dict(shares) for _, shares in look.world.routes)
            held = {line.incumbent for line in look.service.lines}
            others = {it.revision for it in look.service.candidates if it.phase in SERVING}
            if each.phase in ENDED and each.revision not in held | others:
                self.need(not routed, f"{each.branch} has ended and has traffic")
        self._kept(look)

    def _kept(self, look: Look) -> None:
        """What was merged is kept under its version, whatever becomes of its branch (I25)."""
        versions: dict[str, str] = {}
        for revision in self.ports.catalog.revisions(SERVICE):
            self.need(versions.setdefault(revision.version, revision.commit) == revision.commit, "one version, two")
        kept = self.ports.repository.marks().mirror
        for line in look.service.lines:
            for commit in line.history:
                try:
                    version = self.ports.catalog.revision(SERVICE, commit).version
                except BranchlineError:
                    continue
                ref = f"refs/branchline/revisions/{SERVICE}/{version}"
                self.need(kept.get(ref) == commit, f"{ref} is not kept")
