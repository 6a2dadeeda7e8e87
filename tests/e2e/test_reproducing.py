"""This file brings a deployed revision back with what people type: real repository, daemon, gateway, environment."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.typed import Shell, model


def test_a_revision_is_brought_back_proven_traced_and_cleared_away(shell: Shell) -> None:
    """3.30, beyond 3, F49: verify, checkout after everything that was laid out is gone, lineage, gc."""
    shell.git("fetch", "--quiet", "--prune")
    shell.git("switch", "--quiet", "--no-track", "-c", "experiment--proof--ada", "origin/main")
    for path, text in model("proof", 0.4).items():
        (shell.work / path).parent.mkdir(parents=True, exist_ok=True)
        (shell.work / path).write_text(text, encoding="utf-8")
    shell.git("add", "--all")
    shell.git("commit", "--quiet", "-m", "Answer 0.4")
    shell.type("deploy")
    shell.until_live("proof", shell.git("rev-parse", "HEAD"))

    proven = shell.ask("verify", "proof@1.0.0")
    assert [(each["step"], each["verdict"]) for each in proven["steps"]] == [("level", "equal")]
    artifact = proven["steps"][0]["artifact"]

    answer = shell.call("/proof/", "POST", {})
    assert answer.status == 200
    told = shell.ask("lineage", "proof@1.0.0")
    assert {node["kind"] for node in told["nodes"]} >= {"revision", "commit", "step", "environment", "sdk", "gate"}
    shell.until(
        "the request is in the log", lambda: shell.type("lineage", answer.headers["x-request-id"], ok=None).code == 0
    )
    on = shell.ask("lineage", artifact[:12])
    assert "proof@1.0.0" in [node["name"] for node in on["nodes"]]

    for laid in ("laid", "data", "runs"):
        for folder in (shell.state / laid).glob("*"):
            shutil.rmtree(folder)
    back = shell.ask("checkout", "proof@1.0.0", "--into", str(shell.folder / "back"))
    assert back["missing"] == {}
    assert json.loads((Path(back["artifacts"]["level"]) / "value.json").read_bytes()) == {"level": 0.4}
    assert Path(back["python"]).exists()
    assert (shell.folder / "back" / "proof" / "steps.py").exists()

    old = shell.state / "laid" / ("0" * 64)
    old.mkdir()
    os.utime(old, (1, 1))
    assert shell.ask("gc", "--dry-run")["gone"]
    assert old.exists()
    shell.until("nothing is built", lambda: not shell.ask("gc")["busy"])
    assert not old.exists()
    assert shell.ask("verify", "proof@1.0.0")["ok"]
    assert shell.call("/proof/", "POST", {}).status == 200
    assert shell.type("parity").code == 0
