"""This file lets data arrive: an experiment opens itself, is merged, and a spoiled month stops at its gate.

Requirements: 3.03, 3.04, beyond 7 (no human step from a new file to a merged commit), F47.
"""

from __future__ import annotations

import json

from branchline.adapters.servicefile import pins
from tests.typed import Shell, app

ENVIRON = {"UV_OFFLINE": "1"}
DATA = """\
data = { sales = { path = "data/*.csv", key = ["id"], watch = true } }
steps = { total = "steps:total" }"""
STEPS = """\
import csv
from pathlib import Path


def total(sales):
    tables = [csv.DictReader(path.open()) for path in sorted(Path(sales).glob("*.csv"))]
    return {"total": sum(float(row["price"]) for table in tables for row in table)}
"""


def begun(shell: Shell) -> str:
    """A service that is live and reads June, pinned by the command; returns its commit."""
    branch = "experiment--shop--first"
    shell.on_main()
    shell.git("switch", "--quiet", "--create", branch)
    (shell.work / "data").mkdir()
    (shell.work / "data" / "6.csv").write_text("id,price\n1,10\n2,20\n")
    for path, text in {**app("shop", more=DATA), "shop/steps.py": STEPS}.items():
        (shell.work / path).parent.mkdir(exist_ok=True)
        (shell.work / path).write_text(text)
    shell.type("data", "update")
    shell.git("add", "shop")
    shell.git("commit", "--quiet", "--message", "Begin")
    shell.git("push", "--quiet", "origin", branch)
    shell.client.post("/v1/look")
    commit = shell.tip(branch)
    shell.until_live("shop", commit)
    shell.on_main()
    return commit


def arriving(shell: Shell, name: str, text: str) -> str:
    """A month is written; returns the branch that opened of itself."""
    before = shell.rows().keys()
    (shell.folder / name).write_text(text)
    (shell.folder / name).rename(shell.work / "data" / name)  # whole, however long the writing takes
    found: set[str] = set()

    def there() -> bool:
        found.update(branch for branch in shell.rows().keys() - before if "--data-" in branch)
        return bool(found)

    shell.until(f"{name} opens an experiment", there)
    (branch,) = found
    return branch


def test_a_month_arrives_and_is_merged_and_a_spoiled_one_stops(shell: Shell) -> None:
    first = begun(shell)
    branch = arriving(shell, "7.csv", "id,price\n3,30\n")
    shell.until_state(branch, "canary")
    tip = shell.tip(branch)
    assert shell.git("diff", "--name-only", first, tip, "--", "shop", at=shell.truth) == "shop/data.lock"
    assert shell.git("show", "-s", "--format=%an <%ae>", tip, at=shell.truth) == "branchline <branchline@localhost>"
    shell.ask_until_answered("shop", "1.1.0")
    shell.until_live("shop", tip)
    assert branch not in shell.heads()
    pinned = pins(shell.git("show", "main:shop/data.lock", at=shell.truth).encode(), "")["sales"]
    assert (pinned.files, pinned.rows, pinned.digest[:8]) == (2, 3, branch[-8:])

    bad = arriving(shell, "8.csv", "id,price\n4,\n3,40\n5,x\n")
    assert shell.until_state(bad, "evaluation failed")["commit"] == shell.tip(bad)
    shell.until_rest()
    (entry,) = [each for each in shell.history("shop") if each["event"] == "BuildFailed"]
    faults = "column price is text in 8.csv, was number; 1 of 6 rows repeat the key id"
    assert entry["detail"]["reason"] == f"data sales: {faults}"
    assert shell.call("/shop/", unit="u").revision == "shop@1.1.0"

    shell.on_main()
    told = shell.type("data", "log", "sales").out.splitlines()
    assert [line.strip() for line in told if "made" in line] == ["made shop@1.1.0", "made shop@1.0.0"]
    heard = json.loads(shell.type("data", "arrived", "sales", "--json").out)
    assert heard == {"schema": "branchline.arrived/1", "heard": [["shop", "sales"]]}
    assert "shop sales" in shell.type("data", "arrived", "shop").out
    assert shell.refused("data", "arrived", "sails", ok=2)["code"] == "BL109"
