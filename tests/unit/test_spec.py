"""This file tests who may say what: a branch its own steps and share, the trunk alone the policy.

Requirements: 1.40 (the closure); F10 (a branch cannot widen its own policy).
"""

from __future__ import annotations

import json
from dataclasses import replace

from branchline.core.spec import Gate, Guardrails, Metric, Rollout, Spec, Step, as_json, governed

OWN = Spec(
    "housing", "ml/housing", steps=(Step("train", call="steps:train"),), metric=Metric("stars", mde=1.0),
    gates=(Gate("unit", "pytest", seconds=1.0),), rollout=Rollout(slots=9, share=33, skip_ab="hurry"),
    guardrails=Guardrails(failed_requests=False), shared=("lib",),
)  # fmt: skip
TRUNK = Spec(
    "housing", "ml/housing", gates=(Gate("unit", "pytest"), Gate("data", "call", call="gates:data")),
    rollout=Rollout(slots=2, share=10, approval="before"), guardrails=Guardrails(tolerated_ratio=2.0),
)  # fmt: skip


def test_the_trunk_says_policy_and_the_branch_its_own_share_F10() -> None:
    found = governed(OWN, TRUNK)
    assert found.rollout == Rollout(slots=2, share=33, approval="before")
    assert found.guardrails == TRUNK.guardrails
    assert found.gates == (OWN.gates[0], TRUNK.gates[1])  # a gate of the trunk cannot be left out
    assert (found.steps, found.metric) == (OWN.steps, OWN.metric)


def test_what_an_experiment_may_cost_is_its_own_to_say_as_its_share_is() -> None:
    own = replace(OWN, rollout=Rollout(harm_budget=5.0))
    assert governed(own, TRUNK).rollout == replace(TRUNK.rollout, share=0, harm_budget=5.0)
    assert governed(OWN, replace(TRUNK, rollout=Rollout(harm_budget=5.0))).rollout.harm_budget == 0


def test_a_branch_may_run_a_gate_another_way_but_not_loosen_it_F10() -> None:
    mine = Gate("holdout", "compare", value="score.error", max=99.0, max_worse=50.0)
    kept = replace(mine, value="evaluate.mape", max=25.0, max_worse=1.0)
    loose, strict = replace(OWN, gates=(mine, Gate("load", "load", rps=1, seconds=0.1))), replace(TRUNK, gates=(kept,))
    found = governed(loose, strict)
    assert found.gates == (replace(kept, value="score.error"), loose.gates[1])
    other = governed(replace(OWN, gates=(Gate("holdout", "command", command=("true",)),)), strict)
    assert other.gates == (kept,)
    load = Gate("load", "load", rps=50, seconds=2, p99_ms=60)
    assert governed(loose, replace(TRUNK, gates=(load,))).gates[0] == load


def test_a_first_revision_governs_itself() -> None:
    assert governed(OWN, None) is OWN


def test_a_service_is_its_folder_and_what_it_shares_1_40() -> None:
    assert OWN.closure == ("ml/housing", "lib")


def test_a_frozen_spec_is_one_line_of_json() -> None:
    assert json.loads(as_json(OWN))["rollout"]["share"] == 33
    assert "\n" not in as_json(OWN)
