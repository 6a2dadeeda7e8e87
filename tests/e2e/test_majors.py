"""This file types the story of two majors: refused as a minor, begun, served side by side, worked on and retired.

Seed 1: a changed request/response schema = major. What is asserted is asserted of the gateway, git and the ledger.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from tests.typed import Document, Shell, app, model, path_of

OLD = "major--rent--1"
ALEX, KIM = "experiment--rent--alex", "experiment--rent--kim"
PATCH = "fix--rent--typo"
HINTED = """\
from typing import TypedDict


class House(TypedDict):
    sqm: float


class Price(TypedDict):
    prediction: float


def load(level):
    return level["level"]


def predict(request: House, model, rate: float) -> Price:
    return {"prediction": model * rate}
"""


def schema(field: str) -> dict[str, str]:
    """A declared schema whose request has to have one field."""
    request = {"type": "object", "properties": {field: {"type": "number"}}, "required": [field]}
    return {"rent/schema.json": json.dumps({"request": request, "response": {"type": "number"}})}


def declared(major: int = 1, **more: Any) -> dict[str, str]:
    """The files of a service that says what it accepts, for a major."""
    files = app("rent", **more)
    text = files["rent/branchline.toml"].replace("serve = {", 'serve = { schema = "schema.json",')
    return {**files, "rent/branchline.toml": f"major = {major}\n{text}"}


def lines(shell: Shell) -> dict[int, Document]:
    """The incumbent's row of each line."""
    services = shell.status().get("services", ())
    return {row["line"]: row for each in services for row in each["rows"] if row["phase"] == "live"}


def answers(shell: Shell) -> dict[str, str]:
    """Who answers at the addresses of both lines, by path and by header."""
    return {
        "/rent/": shell.call("/rent/").revision,
        "/rent@v1/": shell.call("/rent@v1/").revision,
        "/rent@v2/": shell.call("/rent@v2/").revision,
        "pin v1": shell.call("/rent/", x_branchline_pin="v1").revision,
    }


def shown(shell: Shell, commits: Mapping[str, str]) -> dict[str, str]:
    """Which of these commits' trees each trunk of the remote shows, by name."""
    trees = {shell.git("rev-parse", f"{commit}:rent", at=shell.truth): name for name, commit in commits.items()}
    trunks = [head for head in ("main", OLD) if head in shell.heads()]
    return {trunk: trees.get(shell.git("rev-parse", f"{trunk}:rent", at=shell.truth), "?") for trunk in trunks}


def test_two_majors_side_by_side_from_the_refusal_to_the_end_of_one(shell: Shell) -> None:
    """1.10, 1.51: refused as a minor; 2.0.0 at the plain address, 1.x at its own; a challenger and a fix of 1.x."""
    first = shell.first("rent", declared() | schema("sqm"))
    assert shell.call("/rent@v1/").revision == "rent@1.0.0"  # callers can say so from the beginning

    shell.push("alex", schema("area"), "rent")
    shell.mine(ALEX)
    refused = shell.type("deploy", ALEX, ok=1)
    assert "request.sqm was removed; was it renamed to area?" in refused.err
    assert "a new major, so set major = 2 in rent/branchline.toml" in refused.err
    assert answers(shell)["/rent/"] == "rent@1.0.0"

    shell.write(ALEX, {"rent/branchline.toml": declared(2)["rent/branchline.toml"]}, message="A major")
    second = shell.tip(ALEX)
    shell.mine(ALEX)
    deployed = shell.type("deploy", ALEX)
    assert "/rent/ will be major 2; what serves now stays at http://127.0.0.1:" in deployed.err
    shell.until_live("rent", second)
    assert {line: (row["version"], row["commit"], path_of(row["address"])) for line, row in lines(shell).items()} == {
        1: ("1.0.0", first, "/rent@v1/"),
        2: ("2.0.0", second, "/rent/"),
    }
    both = {"/rent/": "rent@2.0.0", "/rent@v1/": "rent@1.0.0", "/rent@v2/": "rent@2.0.0", "pin v1": "rent@1.0.0"}
    assert answers(shell) == both
    assert shown(shell, {"1.0.0": first, "2.0.0": second}) == {"main": "2.0.0", OLD: "1.0.0"}
    assert shell.refs()["refs/tags/rent@v2.0.0"] == second
    printed = [line.split()[1:] for line in shell.type("status", "rent").out.splitlines() if line.startswith("address")]
    assert [(path_of(address), line) for address, line in printed] == [("/rent/", "2.x"), ("/rent@v1/", "1.x")]
    check_challenger_of_the_older(shell)
    check_fix_of_the_older(shell)
    check_wrong_uses(shell)
    check_retired(shell, first, second)


def check_challenger_of_the_older(shell: Shell) -> None:
    """Line 1 has challengers of its own, from its own trunk; line 2 does not notice."""
    shell.write(KIM, {"rent/NOTE": "one more\n"}, start=OLD, message="A minor of 1")
    judged = shell.tip(KIM)
    assert shell.until_state(KIM, "canary")["line"] == 1
    assert shell.call("/rent/").revision == "rent@2.0.0"
    until_answered(shell, "1.1.0")
    shell.until("1.1.0 serves", lambda: lines(shell)[1]["commit"] == judged)
    shell.until_rest()
    assert shell.git("rev-parse", f"{OLD}:rent", at=shell.truth) == shell.git(
        "rev-parse", f"{judged}:rent", at=shell.truth
    )
    assert KIM not in shell.heads()
    assert answers(shell) == {
        "/rent/": "rent@2.0.0", "/rent@v1/": "rent@1.1.0", "/rent@v2/": "rent@2.0.0", "pin v1": "rent@1.1.0",
    }  # fmt: skip


def check_fix_of_the_older(shell: Shell) -> None:
    """A patch of line 1, by canary."""
    shell.write(PATCH, {"rent/NOTE": "a word\n"}, start=OLD, message="A patch of 1")
    judged = shell.tip(PATCH)
    shell.until_state(PATCH, "canary")
    until_answered(shell, "1.1.1")
    shell.until("1.1.1 serves", lambda: lines(shell)[1]["commit"] == judged)
    shell.until_rest()


def until_answered(shell: Shell, version: str) -> None:
    """Ask line 1 as ever new units until a revision has answered."""

    def answered() -> bool:
        return shell.call("/rent@v1/", unit=os.urandom(6).hex()).revision == f"rent@{version}"

    shell.until(f"{version} answers", answered)


def check_wrong_uses(shell: Shell) -> None:
    """What cannot be is refused with its code and the next command, and changes nothing."""
    before = shell.history("rent")
    unknown = shell.refused("retire", "rent", "3", "--yes", ok=3)
    assert (unknown["code"], unknown["hint"]) == ("BL105", "branchline status rent")
    assert (unknown["title"], unknown["detail"]) == ("retire cannot happen to rent 3.x now", "nothing of it serves")
    shell.type("retire", "rent", "two", ok=2)
    assert shell.refused("retire", "rent", "1", ok=2)["code"] == "BL110"  # nobody to ask
    assert shell.history("rent") == before
    branch = shell.push("far", {"rent/branchline.toml": declared(4)["rent/branchline.toml"]}, "rent")
    told = shell.until_state(branch, "evaluation failed")["detail"]
    assert "BL103" in told
    assert "a new major is the newest one and 1; the newest is 2" in told
    shell.type("close", branch, "--yes")
    shell.until_rest()


def check_retired(shell: Shell, first: str, second: str) -> None:
    """The newest is retired: the plain address and the default branch are the older one's again."""
    fixed = lines(shell)[1]["commit"]
    planned = shell.ask("retire", "rent", "2", "--dry-run")
    texts = [text for _, text in planned["steps"]]
    assert "end the route of line 2" in texts
    assert f"make main show 1.1.1 ({fixed[:7]})" in texts
    done = shell.ask("retire", "rent", "2", "--yes", "--because", "nobody calls it")
    assert done["steps"] == planned["steps"]
    shell.until_live("rent", fixed)
    assert answers(shell)["/rent/"] == "rent@1.1.1"
    assert shell.call("/rent@v2/").status == 404
    assert shown(shell, {"1.1.1": fixed, "2.0.0": second}) == {"main": "1.1.1"}
    assert [ref for ref in shell.refs() if ref.startswith(f"refs/branchline/archive/{OLD}/")]
    shell.until("2.0.0 has stopped", lambda: not shell.instances_of("rent", "2.0.0"))
    ((state,),) = shell.ledger("SELECT state FROM service WHERE name = ?", "rent")
    assert [line["major"] for line in json.loads(state)["lines"]] == [1]
    (entry,) = [each for each in shell.history("rent") if each["event"] == "Retired"]
    assert (entry["because"], entry["detail"]["line"]) == ("nobody calls it", 2)
    assert shell.refused("retire", "rent", "1", "--yes", ok=3)["code"] == "BL105"  # the last one is not retired
    assert shell.type("parity").code == 0
    assert first != fixed


def test_the_hints_of_predict_are_the_schema(shell: Shell) -> None:
    """1.10: read in the service's own environment as it is built, kept with the revision, held against the next one."""
    files = model("hint", 0.4) | {"hint/serving.py": HINTED}
    files["hint/branchline.toml"] = f"parameters = {{ rate = 2 }}\n{files['hint/branchline.toml']}"
    shell.first("hint", files)
    (kept,) = shell.ledger("SELECT schema FROM revision WHERE service = ?", "hint")
    number = {"type": "number"}
    assert json.loads(kept[0]) == {
        "request": {"type": "object", "properties": {"sqm": number}, "required": ["sqm"]},
        "response": {"type": "object", "properties": {"prediction": number}, "required": ["prediction"]},
    }
    assert json.loads(shell.call("/hint/", "POST", {"sqm": 1}).body) == {"prediction": 0.8}
    branch = shell.push("alex", {"hint/serving.py": HINTED.replace("sqm", "area")}, "hint")
    told = shell.until_state(branch, "evaluation failed")["detail"]
    assert told.startswith("schema: request.sqm was removed; was it renamed to area?")
