"""This file composes a world of fakes around one real controller, so that a whole story is played in milliseconds.

One thread, a clock that stands still, no product: `World.settle` runs the controller's own passes until none of them
does anything. What was done to git, traffic and processes is in `effects`, as the steps of the law, in order. What a
service's code does stands in its own file `says.json`: a step or a gate returns what is written there under its name;
"raise TEXT" raises, "hang" runs out of time. A `restart` is a new controller over the same fakes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from copy import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from branchline.adapters.cron import due
from branchline.adapters.servicefile import read_lock, read_service, relock
from branchline.core.service import Candidate, Phase, Service
from branchline.core.world import Absorb, Delete, Drop, Route, Start, Step, Stop, Write
from branchline.engine.asking import described
from branchline.engine.controlling import Controller
from branchline.engine.progress import Note as Told
from branchline.engine.trying import ALL, Wanted
from branchline.ports import Change, Entry, Group, Instance, Outcome, Ports, Served, Stamp
from tests.fakes.artifacts import FakeArtifacts
from tests.fakes.catalog import FakeCatalog
from tests.fakes.clock import FakeClock
from tests.fakes.environments import FakeEnvironments
from tests.fakes.gauges import FakeGauges, FakeVitals
from tests.fakes.git import FakeGit
from tests.fakes.launcher import FakeLauncher
from tests.fakes.ledger import FakeLedger
from tests.fakes.lookout import FakeLookout
from tests.fakes.meter import FakeMeter
from tests.fakes.observations import FakeObservations
from tests.fakes.queries import FakeLooks, FakeQueries, FakeReadings
from tests.fakes.router import FakeRouter
from tests.fakes.runner import FakeRunner
from tests.fakes.sources import FakeSources
from tests.fakes.workers import FakeWorkers
from tests.waiting import wait_until

ALEX, SAM, KIM = (f"experiment--housing--{handle}" for handle in ("alex", "sam", "kim"))
MODEL = """\
kind = "model"
serve = { predict = "serving:predict" }
steps = { train = "steps:train" }
metric = { name = "rating", bounds = [0, 10], mde = 1, window = "10s" }
guardrails = { bad_outcome = { below = 1 } }
rollout = { warm = "60s" }
gates = { unit = "gates:unit" }
"""
APP = MODEL.replace('"model"', '"app"')
LOG = "# Hypothesis\nBetter.\n# Metric\nrating\n# Log\nTried.\n"
MOST_ROUNDS = 40
Story = tuple[str, ...]
TOLD: dict[Story | None, tuple[list[Step], list[dict[str, Any]]]] = {}

Note = Callable[[Step], None]
Values = Mapping[str, Callable[[int], float | Outcome]]
P = ParamSpec("P")
T = TypeVar("T")


class NotedRouter(FakeRouter):
    """A router that tells what it shifted."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self.note = note

    def shift(self, service: str, line: int, shares: Sequence[tuple[str, int]], stamp: Stamp) -> None:
        """Give a line these shares."""
        super().shift(service, line, shares, stamp)
        self.note(Route(line, tuple(shares)))


class NotedLauncher(FakeLauncher):
    """A launcher that tells what it started and stopped."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self.note = note

    def launch(self, group: Group, stamp: Stamp) -> Instance:
        """Begin an incarnation unless there is one."""
        before = len(self.groups)
        instance = super().launch(group, stamp)
        if len(self.groups) > before:
            self.note(Start(1, group.revision, group.perimeter))
        return instance

    def stop(self, nonce: str, stamp: Stamp) -> None:
        """End one incarnation."""
        before = len(self.stopped)
        super().stop(nonce, stamp)
        if len(self.stopped) > before:
            self.note(Stop(1, self.known[nonce].revision, self.known[nonce].perimeter))


class NotedGit(FakeGit):
    """A repository that tells what was written to it by us, and remembers what cannot change."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self.note = note
        self._trees: dict[tuple[str, tuple[str, ...]], str] = {}
        self._folders: dict[tuple[str, str], tuple[str, ...]] = {}

    def tree(self, commit: str, closure: Sequence[str]) -> str:
        """A digest of the texts below the paths."""
        key = (commit, tuple(closure))
        if key not in self._trees:
            self._trees[key] = super().tree(commit, closure)
        return self._trees[key]

    def folders(self, commit: str, name: str) -> tuple[str, ...]:
        """The folders that directly hold a file of that name."""
        if (commit, name) not in self._folders:
            self._folders[commit, name] = super().folders(commit, name)
        return self._folders[commit, name]

    def _written(self, act: Callable[P, T], step: Step, *args: P.args, **kwargs: P.kwargs) -> T:
        before = len(self.writes)
        try:
            return act(*args, **kwargs)
        finally:
            if len(self.writes) > before:
                self.note(step)

    def conclude(self, change: Change) -> str:
        """Make a trunk show a revision."""
        step = Write(1, change.ref, change.revision, change.seen)
        return self._written(super().conclude, step, change)

    def delete(self, service: str, branch: str, tip: str, stamp: Stamp) -> None:
        """Archive and delete a branch."""
        self._written(super().delete, Delete(1, branch, tip), service, branch, tip, stamp)

    def absorb(self, service: str, branch: str, tip: str, revision: str, stamp: Stamp) -> str:
        """Merge a fix."""
        return self._written(super().absorb, Absorb(1, branch, revision), service, branch, tip, revision, stamp)

    def drop(self, service: str, ref: str, stamp: Stamp) -> None:
        """Archive and delete the trunk of an older major."""
        self._written(super().drop, Drop(ref), service, ref, stamp)


class NotedLedger(FakeLedger):
    """A ledger that tells when it has written, and reads each text once."""

    def __init__(self, note: Callable[[Entry], None]) -> None:
        super().__init__()
        self.note = note
        self._read: dict[str, Service] = {}

    def service(self, name: str) -> Service:
        """The recorded state; raises UnknownService."""
        text = self._states.get(name, "")
        if text not in self._read:
            self._read[text] = super().service(name)
        return self._read[text]

    def record(self, after: Service, event: Mapping[str, Any], *, actor: str, because: str, at: float) -> Entry:
        """Keep event and state."""
        entry = super().record(after, event, actor=actor, because=because, at=at)
        self.note(entry)
        return entry


def duplicate(value: Any) -> Any:
    """A value whose containers may be changed without changing the first one's; what they hold is immutable."""
    twin = copy(value) if isinstance(value, dict | list | set) else value
    if isinstance(twin, dict):
        twin.update({key: duplicate(each) for key, each in twin.items()})
    return twin


class Inline(Executor):
    """Does everything at once, in the caller's thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do it."""
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def said(order: Mapping[str, Any]) -> list[list[str]]:
    """What a service's code of this world meets: its `says.json`."""
    plan = order.get("record")
    return [["file", str(Path(order["cwd"], "says.json").relative_to(plan["root"]))]] if plan else []


class World:
    """All fakes, one controller, and what people do beside it.

    Worlds may share a state folder: what lies there is named by its content, or by a number that nobody else has.
    """

    def __init__(self, state: Path) -> None:
        self.effects: list[Step] = []
        self.interrupt: Callable[[object], None] = lambda what: None  # asked after every effect and every record
        self.clock, self.catalog, self.observations = FakeClock(), FakeCatalog(), FakeObservations()
        self.artifacts, self.sources, self.meter = FakeArtifacts(), FakeSources(), FakeMeter()
        self.environments, self.runner, self.lookout = FakeEnvironments(state / "envs"), FakeRunner(), FakeLookout()
        self.workers = FakeWorkers(self.runner.calls, self.runner.endless, self.runner.ended)
        self.workers.met = said
        self.gauges, self.vitals, self.looks = FakeGauges(), FakeVitals(), FakeLooks()
        self.queries, self.readings = FakeQueries(), FakeReadings()
        self.git, self.router, self.launcher = NotedGit(self._note), NotedRouter(self._note), NotedLauncher(self._note)
        self.ledger = NotedLedger(lambda entry: self.interrupt(entry))
        for call in ("steps:train", "steps:clean", "gates:unit", "gates:data"):
            self.runner.calls[call] = self._said
        self.ports = Ports(
            ledger=self.ledger, catalog=self.catalog, observations=self.observations, queries=self.queries, due=due,
            repository=self.git, writer=self.git, environments=self.environments, artifacts=self.artifacts,
            state=state, sources=self.sources, lookout=self.lookout, runner=self.runner, workers=self.workers,
            router=self.router, launcher=self.launcher, clock=self.clock, gauges=self.gauges, vitals=self.vitals,
            relock=relock, meter=self.meter, readings=self.readings, looks=self.looks,
            read_spec=lru_cache(read_service), read_lock=read_lock,
        )  # fmt: skip
        self._commands = dict(self.runner.commands)
        self._story: Story | None = (str(state),)
        self.controller = self.restart()
        self._untouched = self._touch()

    def _note(self, step: Step) -> None:
        self.effects.append(step)
        self.interrupt(step)

    def _said(self, order: dict[str, Any]) -> Any:
        folder = Path(order["cwd"]) if "cwd" in order else self.runner.tasks[-1].cwd
        says = json.loads((folder / "says.json").read_text())
        value = says[order["call"].partition(":")[2]]
        if value == "hang":
            raise TimeoutError
        if isinstance(value, str) and value.startswith("raise "):
            raise ValueError(value.removeprefix("raise "))
        return value

    def restart(self) -> Controller:
        """Begin a new controller over the same fakes: what was only in memory is gone."""
        self.controller = made = Controller(self.ports, "main")
        made.workshop.pool = Inline()
        made.reconciler.spawn = made.gathering.fetching.spawn = made.counting.fetching.spawn = lambda act: act()
        return made

    def round(self) -> bool:
        """Run every pass once; says whether any did something."""
        return sum(each.act() for each in self.controller.passes()) > 0

    def settle(self) -> World:
        """Run all passes until none of them does anything."""
        for _ in range(MOST_ROUNDS):
            if not self.round():
                return self
        raise AssertionError(f"it never settles; last effects: {self.effects[-6:]}")

    def record(self, event: Any, service: str = "housing") -> None:
        """Record an event as the builder, the evidence or a person would."""
        self.controller.recorder.record(service, event)

    def ask(self, command: str, reference: str, **args: Any) -> tuple[tuple[str, str], ...]:
        """Ask as a person does, and return the steps that were named."""
        return self.controller.desk.ask(command, reference, args, actor="kim", because="said so", dry_run=False).steps

    def plan(self, command: str, reference: str, **args: Any) -> tuple[tuple[str, str], ...]:
        """Ask only what would be done."""
        return self.controller.desk.ask(command, reference, args, actor="kim", because="said so", dry_run=True).steps

    def try_out(self, service: str, commit: str, wanted: Wanted = ALL) -> list[Told]:
        """Run steps and gates of a commit as `run` does, to its end; returns what was told."""
        topic = self.controller.trials.begin(service, commit, wanted)
        progress = self.controller.progress
        assert wait_until(lambda: any(note.name == "end" for note in progress.since(0, topic)), every=0.001)
        return list(progress.since(0, topic))

    # ------------------------------------------------------------------------------------------ people and git

    def push(
        self, branch: str = ALEX, toml: str = "", *, says: Mapping[str, Any] | None = None, start: str = "",
        files: Mapping[str, str | None] | None = None, folder: str = "",
    ) -> str:  # fmt: skip
        """Commit a service's files on a branch and return the tip; every push trains something else."""
        service = folder or branch.split("--")[1]
        new = not self.git.tip(branch) or self._file(branch, start, f"{service}/steps.py") is None
        said = {"train": {"loss": len(self.git.commits)}, "unit": True, **(says or {})}
        texts = {"says.json": json.dumps(said), "EXPERIMENT.md": LOG} if new or says else {}
        texts |= {"serving.py": f"# {len(self.git.commits)}\ndef predict(request): ...\n"}
        known = self._file(branch, start, f"{service}/branchline.toml")
        texts |= {"branchline.toml": toml or MODEL} if toml or known is None else {}
        fixed = {
            "steps.py": "def train(): ...\ndef clean(): ...\n",
            "gates.py": "def unit(train): ...\ndef data(): ...\n",
            "requirements.lock": "uvicorn==1.0\n",
        }
        texts |= fixed if new else {}
        every = {f"{service}/{path}": text for path, text in {**texts, **(files or {})}.items()}
        return self.git.write(branch, every, start=start, message=f"Work on {service}")

    def _file(self, branch: str, start: str, path: str) -> bytes | None:
        tip = self.git.tip(branch) or self.git.tip(start) or self.git.tip("main")
        return self.git.read(tip, path)

    def released(self, branch: str = ALEX, toml: str = "") -> str:
        """Bring a first revision to 100 % and merge it; returns its commit."""
        tip = self._told(branch, toml)
        assert self.service(branch.split("--")[1]).line(1).incumbent == tip
        return tip

    def testing(self, branch: str = SAM, toml: str = "") -> str:
        """Bring a challenger (or canary) into traffic; returns its commit."""
        tip = self._told(branch, toml)
        assert self.phase(branch) in (Phase.TESTING, Phase.CANARY)
        return tip

    def _told(self, branch: str, toml: str) -> str:
        """Push and settle. A beginning that was told before, by whatever test, is put back instead of told again."""
        if self._untouched != self._touch():
            self._story = None  # something else happened meanwhile: it is a story of its own
        key = None if self._story is None else (*self._story, branch, toml)
        if key in TOLD:
            self.effects, memories = list(TOLD[key][0]), TOLD[key][1]
            for fake, memory in zip(self._fakes(), memories, strict=True):
                vars(fake).update(duplicate(memory))
            self.restart()
            self.round()  # it looks at what is there
        else:
            self.push(branch, toml)
            self.settle()
            if key:
                memories = [duplicate({n: v for n, v in vars(f).items() if n != "note"}) for f in self._fakes()]
                TOLD[key] = list(self.effects), memories
        self._story, self._untouched = key, self._touch()
        return self.on(branch).revision

    def _fakes(self) -> list[object]:
        """All that remembers; what a service's code does is not remembered but customary."""
        ports = self.ports
        return [
            ports.ledger, ports.catalog, ports.observations, ports.repository, ports.environments,
            ports.artifacts, ports.sources, ports.lookout, ports.launcher, ports.router, ports.meter, ports.clock,
        ]  # fmt: skip

    def _touch(self) -> tuple[object, ...]:
        """What tells whether anything but a story was done: how much there is of all, and who was given other ways."""
        sizes = [
            (name, len(value) if isinstance(value, dict | list | set) else value)
            for fake in self._fakes()
            for name, value in vars(fake).items()
            if not name.startswith("_") and name != "note"
        ]
        calls = [call for call, act in self.runner.calls.items() if act != self._said]
        return (*sizes, *calls, self.runner.commands == self._commands, *(len(vars(fake)) for fake in self._fakes()))

    # ------------------------------------------------------------------------------------------ traffic

    def visit(
        self, units: Iterable[str], service: str = "housing", *, line: int = 1, fails: Sequence[str] = (),
        steps_in: Sequence[str] = (), flags: str = "", moved: Mapping[str, str] | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """Send a request for each unit; returns unit -> the arm it was assigned to. Arms in `fails` answer 503."""
        shown, found = self.router.shown(service)[line], {}
        for unit in units:
            arm = (moved or {}).get(unit) or self.router.arm(service, line, unit)
            answered = shown.shares[0][0] if arm in steps_in else arm
            status = 503 if arm in fails else 200
            found[unit] = arm
            if shown.experiment:
                served = Served(
                    service, unit, f"r{len(self.meter.lines)}", arm, answered, shown.experiment, shown.table,
                    status, flags, 0.01, self.clock.now(), 5.0,
                )  # fmt: skip
                self.meter.lines.append(served)
        return found

    def report(self, values: Mapping[str, float | Outcome], service: str = "housing") -> tuple[str, ...]:
        """Report an outcome for each unit, as the ingest does; returns a word for each."""
        self.controller.read_exposures()
        commits = [c.revision for c in self.service(service).candidates] or [""]
        metric = self.ports.read_spec(self.git.read(commits[-1], f"{service}/branchline.toml") or b"", f"{service}/x")
        assert metric.metric is not None
        whole = ((unit, v if isinstance(v, Outcome) else Outcome(service, v)) for unit, v in values.items())
        outcomes = [replace(each, unit=unit) for unit, each in whole]
        receipts = self.observations.report(outcomes, {service: metric.metric}, at=self.clock.now())
        return tuple(each.word for each in receipts)

    def play(self, units: int, values: Values, service: str = "housing", seed: str = "u") -> dict[str, str]:
        """Visit fresh units, report a value by arm for each, and let their windows close."""
        arms = self.visit([f"{seed}{n}" for n in range(units)], service)
        self.report({unit: values[arm](n) for n, (unit, arm) in enumerate(arms.items()) if arm in values}, service)
        self.clock.advance(10)
        return arms

    # ------------------------------------------------------------------------------------------ looking

    def service(self, name: str = "housing") -> Service:
        """The recorded state."""
        return self.controller.recorder.service(name)

    def on(self, branch: str) -> Candidate:
        """The candidate of a branch."""
        return self.service(branch.split("--")[1]).on(branch)

    def phase(self, branch: str) -> Phase:
        """Where the candidate of a branch is."""
        return self.on(branch).phase

    def shares(self, service: str = "housing", line: int = 1) -> dict[str, int]:
        """What the gateway gives to whom."""
        return dict(self.router.shown(service)[line].shares) if line in self.router.shown(service) else {}

    def events(self, service: str = "") -> list[str]:
        """What was recorded, oldest first."""
        return [entry.event for entry in self.ledger.entries if service in ("", entry.service)]

    def last(self, event: str) -> Entry:
        """The newest entry of an event."""
        return next(entry for entry in reversed(self.ledger.entries) if entry.event == event)

    def troubles(self) -> list[str]:
        """What people are told."""
        return [text for _, text in sorted(self.controller.troubles.items())]

    def merges(self, ref: str = "main") -> list[str]:
        """The conclusions on a trunk, newest first: first lines of the commits that carry our trailer."""
        rows = self.git.log("", self.git.tip(ref))
        return [row["subject"] for row in rows if "Branchline-Event" in self.git.message(row["commit"])]

    def done(self, since: int = 0) -> list[tuple[str, str]]:
        """The effects from a place on, in the words of the desk."""
        return list(self._worded(self.effects[since:]))

    def _worded(self, steps: Iterable[Step]) -> Iterator[tuple[str, str]]:
        versions = {r.commit: r.version for name in self.ledger.services() for r in self.catalog.revisions(name)}
        for step in steps:
            yield described(step, versions)

    def drifts(self) -> list[str]:
        """Where git, production and the record disagree, as every status tells it."""
        return [drift.what for drift in self.controller.parity.drifts(self.ledger.services())]

    def parity(self) -> bool:
        """Whether git equals traffic."""
        return not self.drifts()
