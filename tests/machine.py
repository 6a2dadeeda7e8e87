"""This file draws sequences of people's and machines' deeds, as a Hypothesis state machine over a place of fakes.

What is drawn is kept as data in `DRAWN`, so that the very same sequences can be played on real parts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from branchline.core.lifecycle import OPEN
from branchline.engine.controlling import Controller
from branchline.ports import Finished, Instance, Ports
from tests.deeds import Place, Stage
from tests.fakes.git import FakeGit
from tests.subject import BRANCHES, FIX, HOWS, ON_A, ON_B, SERVICE, A, B, C
from tests.world import Inline, World

EXPERIMENTS = (A, B, C)
PASSES = ("watch", "produce", "git", "work", "judge", "cool")
BRANCH = st.sampled_from(BRANCHES)
THEN = st.sampled_from(("settle", "settle", "settle", "round", ""))
COMMANDS = ("approve", "conclude", "keep", "extend", "abort", "close")


class FakePeople:
    """What people do in the repository in memory."""

    def __init__(self, git: FakeGit) -> None:
        self._git = git
        self.write, self.reset, self.remove = git.write, git.reset, git.remove
        self.tip, self.parents, self.message = git.tip, git.parents, git.message
        self._ancestry = lru_cache(maxsize=4096)(lambda commit: dict.fromkeys(git._line(commit)))

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody reaches the remote meanwhile."""
        self._git.reachable = False
        try:
            yield
        finally:
            self._git.reachable = True

    @property
    def refusing(self) -> bool:
        """Whether the remote refuses pushes."""
        return self._git.refusing

    @refusing.setter
    def refusing(self, no: bool) -> None:
        self._git.refusing = no

    def heads(self) -> Mapping[str, str]:
        """All branches."""
        return dict(self._git.heads)

    def texts(self, commit: str) -> Mapping[str, str]:
        """Every text of a commit."""
        return self._git.commits[commit].files

    def join(self, branch: str, texts: Mapping[str, str], parents: Sequence[str], message: str) -> str:
        """Commit these texts upon these parents, and let the branch be there."""
        self._git._clock += 1
        made = self._git._keep(texts, tuple(parents), message, "Kim <kim@example.invalid>", self._git._clock)
        self._git.heads[branch] = made
        return made

    def ancestry(self, commit: str) -> Collection[str]:
        """A commit and all that it comes from, newest first."""
        return self._ancestry(commit)


class Behaviour(dict[str, str]):
    """What becomes of a revision's processes, as its code says."""

    def __init__(self, git: FakeGit) -> None:
        super().__init__()
        self._git = git

    def get(self, revision: str, default: Any = None) -> Any:
        """By revision; by revision and perimeter nothing is said."""
        commit = self._git.commits.get(revision)
        if commit is None:
            return default
        return "dies" if commit.files.get(f"{SERVICE}/mode") == "dies\n" else "well"


class FakePlace:
    """A world of fakes."""

    def __init__(self, state: Path) -> None:
        self.world = World(state)
        self.ports, self.git, self.clock = self.world.ports, FakePeople(self.world.git), self.world.clock
        self.world.runner.commands["test"] = lambda task: Finished(0 if (task.cwd / task.argv[2]).exists() else 1, 0.01)
        self.world.launcher.behave = Behaviour(self.world.git)

    def begin(self, ports: Ports, *, again: bool) -> Controller:
        """A controller over these ports that does everything at once."""
        self.world.router._read.clear()  # by this process nothing was read yet
        controller = Controller(ports, "main")
        controller.workshop.pool = Inline()
        controller.reconciler.spawn = lambda act: act()
        self.world.controller = controller
        return controller

    def visit(self, units: Sequence[str], line: int, failing: Collection[str]) -> Mapping[str, str]:
        """Requests of these units."""
        return self.world.visit(units, line=line, fails=tuple(failing))

    def die(self, instance: Instance) -> None:
        """A process ends."""
        self.world.launcher.end(instance.nonce)

    def back(self, line: int) -> str:
        """Roll a line back without a daemon; returns who lost its traffic by an abort, if anybody."""
        shown = self.world.router.shown(SERVICE).get(line)
        routes = dict(self.world.router.services[SERVICE].lines) if shown else {}
        if shown is None or (len(shown.shares) < 2 and not routes[line].previous):
            return ""
        self.world.router.roll_back(SERVICE, line, actor="kim", because="it is sick", at=self.clock.now())
        return shown.shares[-1][0] if len(shown.shares) > 1 else ""

    def busy(self) -> bool:
        """Whether something is under way."""
        return False


Ground = Callable[[Path], Place]


class Machine(RuleBasedStateMachine):
    """Sequences of deeds; every rule is one deed, and what the controller does before the next one."""

    state: ClassVar[Path]
    stages: ClassVar[list[Stage]]
    grounds: ClassVar[tuple[Ground]]
    stage: Stage

    @initialize(
        slots=st.sampled_from((1, 2)),
        approval=st.sampled_from(("", "", "", "before", "after")),
        begun=st.integers(0, 6),
    )
    def setup(self, slots: int, approval: str, begun: int) -> None:
        self.stage = Stage(self.grounds[0](self.state), slots, approval)
        if begun:
            self.play("push", A, "well", then="settle")
            if approval:
                self.play("ask", "approve", A, {}, 0, then="settle")
        if begun > 1:
            self.play("push", B, ("well", "app")[begun % 2], then="settle")
            if approval == "before":
                self.play("ask", "approve", B, {}, 0, then="settle")
        if begun > 3:
            self.play("push", (C, FIX, ON_B)[begun % 3], "well", then="settle")

    def some(self, branch: str) -> str:
        """One of the branches that are open, if any is: what happens to nothing finds nothing."""
        there = [each.branch for each in self.stage.service.candidates if each.phase in OPEN]
        return there[BRANCHES.index(branch) % len(there)] if there else branch

    def play(self, deed: str, *args: Any, then: str) -> None:
        self.stage.play(deed, *args)
        if then:
            self.stage.play("then", then)

    @rule(branch=BRANCH, how=st.sampled_from(("well",) * 8 + HOWS), then=THEN)
    def push(self, branch: str, how: str, then: str) -> None:
        self.play("push", branch, how, then=then)

    @rule(branch=BRANCH, to=st.sampled_from(("parent", "rewritten", "main", *EXPERIMENTS)), then=THEN)
    def force(self, branch: str, to: str, then: str) -> None:
        self.play("force", self.some(branch), to, then=then)

    @rule(branch=BRANCH, to=BRANCH, what=st.sampled_from(("delete", "rename")), then=THEN)
    def unname(self, branch: str, to: str, what: str, then: str) -> None:
        branch = self.some(branch)
        self.play(what, *((branch,) if what == "delete" else (branch, to)), then=then)

    @rule(
        branch=BRANCH, into=st.sampled_from(("main", "main", "main", A, B)),
        how=st.sampled_from(("merge", "merge delete", "squash", "squash delete")), then=THEN,
    )  # fmt: skip
    def merge(self, branch: str, into: str, how: str, then: str) -> None:
        self.play("merge", self.some(branch), into, how, then=then)

    @rule(what=st.sampled_from(("inside", "elsewhere", "elsewhere", "dropped", "rewound")), then=THEN)
    def foreign(self, what: str, then: str) -> None:
        self.play("foreign", what, then=then)

    @rule(branch=BRANCH, then=THEN)
    def sync(self, branch: str, then: str) -> None:
        self.play("sync", self.some(branch), then=then)

    @rule(command=st.sampled_from(COMMANDS), branch=BRANCH, fuse=st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5)), then=THEN)
    def ask(self, command: str, branch: str, fuse: int, then: str) -> None:
        self.play("ask", command, self.some(branch), {}, fuse, then=then)

    @rule(branch=BRANCH, share=st.sampled_from((2, 10, 30, 50, 98)), then=THEN)
    def split(self, branch: str, share: int, then: str) -> None:
        self.play("ask", "split", self.some(branch), {"share": share}, 0, then=then)

    @rule(command=st.sampled_from(("rollback", "retire")), line=st.sampled_from((1, 1, 2)), then=THEN)
    def ask_of_a_line(self, command: str, line: int, then: str) -> None:
        self.play("ask", command, SERVICE, {"line": line}, 0, then=then)

    @rule(command=st.sampled_from(("freeze", "thaw", "thaw")), then=THEN)
    def ask_of_all(self, command: str, then: str) -> None:
        self.play("ask", command, SERVICE, {}, 0, then=then)

    @rule(
        line=st.sampled_from((1, 1, 1, 2)), how=st.sampled_from(("good", "bad", "tie", "harm", "breach")),
        number=st.sampled_from((20, 340, 340)), then=THEN,
    )  # fmt: skip
    def traffic(self, line: int, how: str, number: int, then: str) -> None:
        self.play("traffic", line, how, number, then=then)

    @rule(how=st.sampled_from(("good", "good", "good", "bad", "harm")))
    def verdict(self, how: str) -> None:
        self.play("traffic", 1, how, 340, then="settle")

    @rule(branch=st.sampled_from((A, B, C, FIX, ON_A, ON_B)))
    def candidate(self, branch: str) -> None:
        self.play("push", branch, "well", then="settle")

    @rule(line=st.sampled_from((1, 1, 1, 2)))
    def offline(self, line: int) -> None:
        self.play("offline", line, then="")

    @rule(number=st.integers(0, 5), then=THEN)
    def die(self, number: int, then: str) -> None:
        self.play("die", number, then=then)

    @rule(
        fault=st.sampled_from((
            ("remote", "dead"), ("remote", "refusing"), ("remote", "lost"), ("remote", "well"), ("remote", "well"),
            ("router", "down"), ("router", "rejects"), ("router", "well"), ("ledger", "busy"), ("ledger", "full"),
            ("ledger", "well"),
        )),
        then=THEN,
    )  # fmt: skip
    def fault(self, fault: tuple[str, str], then: str) -> None:
        self.play("fault", *fault, then=then)

    @rule(fuse=st.integers(1, 60), late=st.booleans(), starting=st.booleans(), then=THEN)
    def kill(self, fuse: int, late: bool, starting: bool, then: str) -> None:
        self.play("kill", fuse, late, starting, then=then)

    @rule(seconds=st.sampled_from((1, 31, 61, 3700, -3600)), then=THEN)
    def wait(self, seconds: int, then: str) -> None:
        self.play("wait", seconds, then=then)

    @rule(chosen=st.lists(st.sampled_from(PASSES), min_size=1, max_size=4))
    def passes(self, chosen: list[str]) -> None:
        self.play("passes", *chosen, then="")

    @rule()
    def rest(self) -> None:
        self.play("rest", then="")

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            self.stage.play("rest")
            self.stages.append(self.stage)


def run(
    state: Path, sequences: int, steps: int = 25, seed: int = 0, *, smallest: bool = True, place: Ground = FakePlace
) -> list[Stage]:
    """Play so many sequences over fakes; returns their stages. Raises Broken, with the smallest sequence that breaks.

    The same numbers draw the same sequences.
    """
    logging.getLogger("branchline").setLevel(logging.CRITICAL)
    stages: list[Stage] = []
    here = type(f"Machine{seed}", (Machine,), {"state": state, "stages": stages, "grounds": (place,)})
    limits = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink) if smallest else (Phase.generate,),
    )
    run_state_machine_as_test(here, settings=limits)
    return stages


def asked(default: int) -> int:
    """How many sequences: SOAK_SEQUENCES, or else so many."""
    return int(os.environ.get("SOAK_SEQUENCES", default))
