"""This file holds a service that is tested by A/B and needs no package: it answers its level; people like high ones.

Level, note and mode are files of their own, so that a challenger, a fix and a sync touch different ones.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from tests.servers import LEVELS
from tests.typed import LOG, NO_LOCK, Answer, Document, Shell

FILE = """\
kind = "model"
serve = {{ command = ["python", "server.py"], start = "60s", drain = "0s" }}
metric = {{ name = "score", bounds = [0, 1], mde = 0.3, window = "1s" }}

[rollout]
slots = {slots}
share = {share}
slice = 50
warm = "1h"
canary = {{ duration = "0s", requests = {requests} }}

[gates]
files = {{ command = ["test", "-f", "level"] }}
"""


def levels(name: str, level: float = 0.2, *, slots: int = 1, share: int = 40, requests: int = 1) -> dict[str, str]:
    """The files of the service."""
    files = {
        "branchline.toml": FILE.format(slots=slots, share=share, requests=requests),
        "server.py": LEVELS, "level": f"{level}\n", "note": "first\n", "mode": "well\n", "words": "one\n",
        "requirements.lock": NO_LOCK, "EXPERIMENT.md": LOG,
    }  # fmt: skip
    return {f"{name}/{path}": text for path, text in files.items()}


def score(answer: Answer) -> float:
    """An outcome: the level that was answered, give or take a little."""
    noise = zlib.crc32(answer.headers["x-request-id"].encode()) % 200 - 100
    return min(1.0, max(0.0, float(json.loads(answer.body)["prediction"]) + noise / 1000))


def challenger(shell: Shell, name: str, handle: str, level: float) -> str:
    """Somebody's push of another level, brought under test; returns its branch."""
    branch = shell.push(handle, {f"{name}/level": f"{level}\n"}, name)
    shell.until_state(branch, "A/B test")
    return branch


def begin_fix(shell: Shell, name: str, *words: str, path: str = "note", text: str = "mended\n") -> str:
    """Type `fix` on the trunk's work tree, mend a file and deploy; returns the branch."""
    shell.on_main()
    branch = str(shell.ask("fix", name, *words)["branch"])
    (shell.work / name / path).write_text(text, encoding="utf-8")
    shell.git("commit", "--quiet", "--all", "-m", f"Mend {path}")
    shell.type("deploy", branch)
    shell.on_main()
    return branch


def absorbed(shell: Shell, name: str, branch: str, version: str) -> str:
    """Give the canary of a fix its requests until it is part of its challenger; returns that one's revision."""
    shell.ask_until_answered(name, version)
    shell.until(f"{branch} is absorbed", lambda: shell.events(branch)[-1:] == ["Recorded"])
    shell.until_rest()
    challenger = "--".join(("experiment", name, branch.rpartition("--")[2]))
    return str(shell.row(challenger)["commit"])


def released(shell: Shell, name: str, branch: str, version: str) -> Document:
    """Give the canary of a fix of the trunk its requests until it is the incumbent; returns that row."""
    commit = shell.tip(branch)
    shell.ask_until_answered(name, version)
    return shell.until_live(name, commit)


def until_won(shell: Shell, name: str, branch: str, *states: str) -> int:
    """Traffic and outcomes until a challenger has won (or is in one of these states); how many units that took."""
    number, mine = 0, states or ("won", "concluding", "live")
    begun = len(shell.history(name))
    while shell.row(branch).get("state", "live") not in mine:
        shell.see(name, [f"{branch}-{begun}-{number + each}" for each in range(40)], score)
        number += 40
        assert number <= 6000, shell.row(branch)
    return number


def file_at(shell: Shell, ref: str, path: str) -> str:
    """A text at a branch or commit of the remote."""
    return shell.git("show", f"{ref}:{path}", at=shell.truth)


def at(shell: Shell, path: str) -> Path:
    """A path in the work tree."""
    return shell.work / path
