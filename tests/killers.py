"""This file takes one protection of the law away at a time, and says what must break then.

A killer edits the text of one module of the law; the edited text is compiled beside the real one, which has no switch
to turn anything off. An edit that does not fit the text any more is an error: the killer moves with its protection.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from branchline.core import lifecycle, waiting, world
from tests.explorer import Law
from tests.happenings import Scenario


@dataclass(frozen=True)
class Killer:
    """One protection: its text, what stands there without it, and how that is noticed."""

    protection: str
    module: ModuleType
    text: str
    instead: str
    scenario: str
    broken: str

    @property
    def law(self) -> Law:
        """The law without this protection."""
        names = compiled(waiting, self.edits(waiting), {})
        moves = compiled(lifecycle, self.edits(lifecycle), names)
        worlds = compiled(world, self.edits(world), {})
        return Law(moves["move"], worlds["desired"], worlds["plan"], worlds["ready"])

    def edits(self, module: ModuleType) -> tuple[str, str] | None:
        return (self.text, self.instead) if module is self.module else None

    def among(self, scenarios: Iterable[Scenario]) -> Scenario:
        return next(each for each in scenarios if each.name == self.scenario)


def compiled(module: ModuleType, edit: tuple[str, str] | None, names: dict[str, Any]) -> dict[str, Any]:
    """The functions and tables of a module, edited, that see each other and `names`; its records stay as they are."""
    source = inspect.getsource(module)
    if edit:
        assert source.count(edit[0]) == 1, f"{module.__name__} has this {source.count(edit[0])} times: {edit[0]}"
        source = source.replace(*edit)
    namespace = {**vars(module), **names}
    before = dict(namespace)
    exec(code(source), namespace)  # noqa: S102  the project's own text
    return {name: value for name, value in namespace.items() if before.get(name) is not value}


@cache
def code(source: str) -> Any:
    tree = ast.parse(source)
    kept = (ast.FunctionDef, ast.Assign, ast.AnnAssign)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    return compile(tree, "<killer>", "exec", dont_inherit=True)


KILLERS = (
    Killer(
        "no verdict outlives its incumbent",
        lifecycle,
        "phase=P.TESTING if void else each.phase",
        "phase=each.phase",
        "two A/B tests at once",
        "a verdict outlived the incumbent it was against",
    ),
    Killer(
        "a segment is against one incumbent",
        lifecycle,
        "segment=each.segment + 1,\n                phase=P.TESTING if void",
        "phase=P.TESTING if void",
        "two A/B tests at once",
        "a segment against two incumbents",
    ),
    Killer(
        "an unjudged tip is the next candidate",
        lifecycle,
        "each.tip != each.revision and each.phase in OVER",
        "False",
        "an A/B test",
        "an unjudged tip was forgotten",
    ),
    Killer(
        "under test the judged commit stays judged",
        lifecycle,
        "return replace(candidate, tip=event.tip)",
        "return replace(candidate, tip=event.tip, revision=event.tip)",
        "an A/B test",
        "judged commit changed under test",
    ),
    Killer(
        "a new commit is a new candidate",
        lifecycle,
        "revision=tip, tip=tip, approved=False, segment=0)",
        "revision=tip, tip=tip)",
        "an approval",
        "what was said of a commit outlived it",
    ),
    Killer(
        "behind",
        waiting,
        "if behind(service, candidate):",
        "if False:",
        "a rollback under a test",
        "concluding against what it was not compared with",
    ),
    Killer(
        "a branch made from what has gone begins behind",
        lifecycle,
        "(event.base is None and not event.outdated)",
        "event.base is None",
        "a branch made from an incumbent that has gone",
        "taken for made from what serves",
    ),
    Killer(
        "a fix brings its challenger no nearer to the trunk than it is itself",
        lifecycle,
        "holds=arm.holds if outdated else incumbent",
        "holds=incumbent",
        "a fix of a challenger that is behind",
        "taken for made from what serves",
    ),
    Killer(
        "an arm changes hands one at a time",
        waiting,
        "in_a_slice or candidate.phase in (Phase.CANARY, Phase.CONCLUDING)",
        "False",
        "two first revisions",
        "two take one arm",
    ),
    Killer(
        "no test begins against an incumbent that is leaving",
        waiting,
        "full or concluding(service, candidate.line)",
        "full",
        "two A/B tests",
        "a test began against an incumbent that is leaving",
    ),
    Killer(
        "slots",
        waiting,
        "len(service.under_test(candidate.line)) >= service.slots or not fits",
        "not fits",
        "two A/B tests",
        "more under test than slots",
    ),
    Killer(
        "the incumbent keeps an arm",
        waiting,
        "share >= SMALLEST and others + share <= 100 - SMALLEST",
        "True",
        "two A/B tests at once",
        "a share that is none",
    ),
    Killer(
        "nobody serves whose gates have not passed",
        lifecycle,
        "Built: {P.BUILDING: P.EVALUATING}",
        "Built: {P.BUILDING: P.QUEUED}",
        "an A/B test",
        "went on without its gates",
    ),
    Killer("freeze", waiting, "if service.frozen:", "if False:", "a canary and a freeze", "went on while frozen"),
    Killer(
        "approval before",
        waiting,
        '("before" if candidate.phase is Phase.QUEUED else "after")',
        '("" if candidate.phase is Phase.QUEUED else "after")',
        "an approval",
        "went on without approval",
    ),
    Killer(
        "approval is of the verdict, not of what was there before",
        lifecycle,
        'approved=candidate.approved and service.approval != "after"',
        "approved=candidate.approved",
        "an approval too early",
        "concluded without approval",
    ),
    Killer(
        "a person's word waits for approval as a verdict does",
        lifecycle,
        "replace(decided(service, enter(candidate, to)), overridden=told)",
        "replace(enter(candidate, to), overridden=told)",
        "an approval too early",
        "concluded without approval",
    ),
    Killer(
        "a person's word ends no canary",
        lifecycle,
        "if candidate.method is not Method.AB_TEST:\n        raise",
        "if False:\n        raise",
        "a canary and a freeze",
        "a person's word for who is not judged for effect",
    ),
    Killer(
        "an abort is legal until git has it",
        lifecycle,
        "Aborted: {**_each(PREPARING, P.FAILED), **_each(SERVING, P.ROLLED_BACK)}",
        "Aborted: {**_each(PREPARING, P.FAILED), **_each(SERVING - {P.CONCLUDING}, P.ROLLED_BACK)}",
        "an A/B test",
        "there is no way out",
    ),
    Killer(
        "a sick first revision stays",
        lifecycle,
        "candidate.phase is P.CONCLUDING and is_first(service, candidate)",
        "False",
        "two first revisions",
        "a guardrail left nothing that serves",
    ),
    Killer(
        "a guardrail goes back only to what is warm",
        lifecycle,
        "if not service.line(candidate.line).warm or concluding(service, candidate.line):",
        "if concluding(service, candidate.line):",
        "two first revisions",
        "a guardrail left nothing that serves",
    ),
    Killer(
        "no rollback under a conclusion",
        lifecycle,
        "case RolledBack() if len(line.history) > 1 and not concluding(service, line.major):",
        "case RolledBack() if len(line.history) > 1:",
        "a rollback under a test",
        "concluding against what it was not compared with",
    ),
    Killer(
        "a fix ends with its challenger",
        lifecycle,
        "each.phase in PREPARING | SERVING and not in_traffic(service, each.base)",
        "False",
        "a fix of a challenger",
        "a fix of nothing",
    ),
    Killer(
        "a fix follows its challenger to the trunk",
        lifecycle,
        "elif other.base == candidate.branch and other.phase in OPEN:",
        "elif False:",
        "a fix of a challenger",
        "a fix lost its challenger by its promotion",
    ),
    Killer(
        "the incumbent runs while a winner concludes",
        world,
        "for line in service.lines:  # the",
        "for line in service.lines[:0]:  # the",
        "an A/B test",
        "the incumbent would be stopped",
    ),
    Killer(
        "a second colour waits for a word",
        waiting,
        "if candidate.stands_by and not is_first(service, candidate):",
        "if False:",
        "blue and green",
        "a second colour took the arm without a word",
    ),
    Killer(
        "a second colour takes all or nothing",
        lifecycle,
        "or is_first(service, each) or each.method is Method.BLUE_GREEN:",
        "or is_first(service, each):",
        "blue and green",
        "a part of the arm for a second colour",
    ),
    Killer(
        "a second colour stands by, warm",
        world,
        "if candidate.phase in SERVING or candidate.stands_by:",
        "if candidate.phase in SERVING:",
        "blue and green",
        "no second colour stands by",
    ),
    Killer(
        "staging is kept while queued",
        world,
        "if each.phase in (Phase.EVALUATING, Phase.QUEUED):",
        "if each.phase in (Phase.EVALUATING,):",
        "an approval",
        "staging does not run for who looks at it, or runs for nobody",
    ),
    Killer(
        "route what can be routed first",
        world,
        "[Route(n, safe) for n, want, safe in shifts if safe and safe not in (want, routes.get(n))]",
        "[]",
        "two A/B tests, two slots",
        "an abort waits for a process, or for git",
    ),
    Killer(
        "start before route",
        world,
        'return "" if all(revision in up for revision, _ in shares) else "start"',
        'return ""',
        "an A/B test",
        "routed what does not run",
    ),
    Killer(
        "route before git",
        world,
        'return "" if moves or _shifted(line, revision, actual, wanted) else "route"',
        'return ""',
        "an A/B test",
        "recorded what does not serve",
    ),
    Killer(
        "route before a fix is absorbed",
        world,
        'return "" if _shifted(line, revision, actual, wanted) else "route"',
        'return ""',
        "a fix of a challenger",
        "absorbed what does not serve",
    ),
    Killer(
        "route before stop",
        world,
        "if any(revision in dict(shares) for _, shares in actual.routes):",
        "if False:",
        "an A/B test",
        "stopped what is routed",
    ),
    Killer(
        "the last healthy copy of a line is not stopped",
        world,
        'return "" if heads <= _up(actual) else "start"',
        'return ""',
        "an A/B test",
        "stopped the last healthy copy",
    ),
    Killer(
        "an older major's trunk before the default branch",
        world,
        "if unborn or any(head == seen for _, head in missing):",
        "if False:",
        "a major",
        "the code of a line is on no trunk",
    ),
    Killer(
        "a trunk is dropped when its code stands elsewhere",
        world,
        'return "" if set(wanted.trunks) <= set(actual.trunks) else "trunk"',
        'return ""',
        "a major",
        "the code of a line is on no trunk",
    ),
    Killer(
        "a tree that nobody knows is not written over",
        world,
        "if trunks.get(ref) not in (revision, FOREIGN):",
        "if trunks.get(ref) != revision:",
        "a foreign commit",
        "wrote over a tree that nobody knows",
    ),
    Killer(
        "a branch is deleted when the trunk has it",
        world,
        'return "trunk" if any(head == tip for _, head in set(wanted.trunks) - set(actual.trunks)) else ""',
        'return ""',
        "a foreign commit",
        "deleted what the trunk does not have",
    ),
    Killer(
        "a branch is deleted at the tip that was seen",
        world,
        "doomed = sorted(each for each in wanted.doomed if (each.branch, each.tip) in actual.branches)",
        "doomed = sorted(Doomed(b, t, 1) for b, t in actual.branches if b in {each.branch for each in wanted.doomed})",
        "a push nobody has told us of",
        "deleted a commit nobody judged",
    ),
)
