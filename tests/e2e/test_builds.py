"""This file types builds: what runs and why, side by side, for each of a list, stopped, killed and gone on.

Requirements: 1.17 (a DAG), 2.11 (recorded), 2.26, 3.03 (code and data), 3.23, 3.24 (commands); F14, F22, F24.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.family import has_ended
from tests.typed import NO_LOCK, PATIENCE, Document, Shell

FILE = """\
kind = "app"
serve = { command = ["python", "server.py"] }
parameters = { cities = ["ames", "boone"], deep = false, door = "DOOR" }
gates = { unit = { command = ["true"] } }

[steps]
read = "steps:read"
each = { call = "steps:each", for_each = { city = "cities" } }
sum_up = "steps:sum_up"
deep_one = { call = "steps:deep_one", when = "deep" }
report = { command = ["cp", "words.txt", "out.txt"], inputs = ["sum_up"], output = "out.txt", reads = ["*.txt"] }
"""
STEPS = """\
from pathlib import Path

import branchline
from helped import scale


def read():
    query = "".join(["q", ".sql"])
    return Path(query).read_text().strip()


def each(city, read):
    branchline.log(length=len(city))
    return scale(len(city))


def sum_up(each):
    return {"sum": sum(each)}


def deep_one():
    return 1
"""
HELPED = "FACTOR = 2\n\n\ndef scale(number):\n    return FACTOR * number\n\n\ndef other():\n    return 0\n"
FOUND = {"read", "each[ames]", "each[boone]", "each", "sum_up", "report", "deep_one"}


def written(shell: Shell, name: str, file: str = FILE, **files: str) -> Path:
    """A service in the work tree that nobody has committed; returns its folder."""
    shell.on_main()
    folder = shell.work / name
    folder.mkdir(exist_ok=True)
    texts = {"branchline.toml": file, "requirements.lock": NO_LOCK, "server.py": "", "steps.py": STEPS}
    texts |= {"helped.py": HELPED, "q.sql": "select 1\n", "words.txt": "one\n"}
    for path, text in {**texts, **files}.items():
        (folder / path).write_text(text)
    return folder


def run(shell: Shell, name: str, *words: str, ok: int = 0) -> dict[str, Document]:
    """Type a run of the steps; returns the first note of each by its name."""
    lines = shell.type("run", name, "--no-gates", "--json", *words, ok=ok).out.splitlines()
    notes = [note for note in map(json.loads, lines) if note["name"] != "env"]
    return {note["name"]: note for note in reversed(notes)}  # what a notice says of a step comes after its own line


def marks(notes: dict[str, Document]) -> dict[str, str]:
    return {name: note["mark"] for name, note in notes.items() if name != "end"}


def test_what_changed_runs_and_nothing_else_and_each_says_why(shell: Shell) -> None:
    """3.03, 3.23, 3.24: a comment rebuilds nothing, a file that is read at run time does."""
    own = HELPED.replace("FACTOR = 2", "FACTOR = 7")  # what another test's service has left is reused here, too
    folder = written(shell, "mill", **{"helped.py": own})
    assert marks(run(shell, "mill")) == dict.fromkeys(FOUND, "ok") | {"deep_one": "="}
    assert marks(run(shell, "mill")) == dict.fromkeys(FOUND, "=")

    (folder / "steps.py").write_text(STEPS.replace("def each", "# a comment\n\n\ndef each"))
    (folder / "helped.py").write_text(f'"""Said."""\n\n{own}')
    assert marks(run(shell, "mill")) == dict.fromkeys(FOUND, "=")

    (folder / "q.sql").write_text("select 2\n")
    foreseen = run(shell, "mill", "--dry-run")
    assert foreseen["read"]["text"].splitlines()[0] == "would run: changed: mill/q.sql (read while it ran)"
    assert foreseen["each"]["text"] == "depends on what read will leave"
    ran = run(shell, "mill")
    assert {name for name, mark in marks(ran).items() if mark == "ok"} == {"read", "each[ames]", "each[boone]"}
    assert marks(ran)["sum_up"] == "="  # its items came out the same

    (folder / "words.txt").write_text("two\n")
    assert {name for name, mark in marks(run(shell, "mill")).items() if mark == "ok"} == {"report"}
    (folder / "branchline.toml").write_text(FILE.replace('"boone"', '"boone", "clive"'))
    ran = run(shell, "mill")
    assert {name for name, mark in marks(ran).items() if mark == "ok"} == {"each[clive]", "each", "sum_up", "report"}


def test_why_tells_what_the_key_was_made_of_and_what_guards_the_result(shell: Shell) -> None:
    folder = written(shell, "loom")
    run(shell, "loom")
    told = shell.ask("why", "loom", "read")["steps"][0]
    assert {"code steps:read", "environment", "sdk", "step"} <= {line["name"] for line in told["lines"]}
    assert ["file", "loom/q.sql"] in [[fact["kind"], fact["name"]] for fact in told["facts"]]
    assert "guard   file loom/q.sql" in shell.type("why", "loom", "read").out
    assert "code steps:read" in shell.type("why", "loom", "read", "--reused").out
    (folder / "helped.py").write_text(HELPED.replace("return FACTOR", "return 1 + FACTOR"))
    run(shell, "loom")
    told = shell.ask("why", "loom", "each")["steps"][0]
    assert told["why"] == "changed: helped:scale (loom/helped.py:4), via each > scale"
    found = shell.ask("runs", "loom", "--step", "each", "--where", "length>4")
    assert found["runs"]


def test_check_says_what_makes_reuse_unsure(shell: Shell) -> None:
    text = STEPS.replace("    return 1\n", "    import time\n    return time.time()\n")
    written(shell, "clock", **{"steps.py": text})
    told = shell.type("check", "clock")
    assert "note[BL303]: `deep_one` reads the clock (time.time, clock/steps.py:23)" in told.out
    assert [notice["code"] for notice in shell.ask("check", "clock")["notices"]] == ["BL303"]


def test_a_step_that_leaves_something_else_each_time_is_found_F22(shell: Shell) -> None:
    text = STEPS.replace("    return 1\n", "    import os\n    return os.urandom(4).hex()\n")
    written(shell, "dice", FILE.replace("deep = false", "deep = true"), **{"steps.py": text})
    run(shell, "dice")
    verified = run(shell, "dice", "--verify", ok=1)
    assert (verified["end"]["text"], verified["end"]["more"]) == ("deep_one", {"failed": ["deep_one"]})
    assert {name for name, mark in marks(verified).items() if mark == "no"} == {"deep_one"}
    assert verified["sum_up"]["text"] == "the same again"
    assert run(shell, "dice", "--verify", "sum_up")["end"]["mark"] == "ok"
    assert shell.ask("why", "dice", "deep_one")["steps"][0]["state"] == "reused"


def test_a_step_that_outgrows_its_memory_is_ended_alone_F14(shell: Shell) -> None:
    held = "    held = bytearray(400_000_000)\n    while held:\n        pass\n"  # until somebody has looked
    text = STEPS.replace("    return 1\n", held)
    file = FILE.replace("deep = false", "deep = true").replace('when = "deep"', 'when = "deep", memory = "200MB"')
    written(shell, "glutton", file, **{"steps.py": text})
    told = run(shell, "glutton", "--keep-going", ok=1)
    assert told["deep_one"]["text"] == "out of memory: more than 200 MB"
    assert told["report"]["mark"] == "ok"


WAITING = """\
import os
import time


def fast():
    return 1


def slow(fast, door):
    with open(door + ".knocking", "w") as file:
        file.write(str(os.getpid()))
    os.rename(door + ".knocking", door + ".knocked")
    while not os.path.exists(door):
        time.sleep(0.02)
    return 2
"""


def waits(shell: Shell, name: str, door: Path) -> None:
    """A service whose second step waits at a door."""
    head = FILE.partition("[steps]")[0].replace("DOOR", str(door))
    written(shell, name, head + '[steps]\nfast = "steps:fast"\nslow = "steps:slow"\n', **{"steps.py": WAITING})


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_what_was_finished_is_not_run_again_after_a_run_was_ended(shell: Shell, tmp_path: Path, how: str) -> None:
    """1.17, F24: kill -9 of the daemon, and Ctrl-C at the command; nothing of the run is left."""
    door = tmp_path / "door"
    waits(shell, how, door)
    typed = shell.begin("run", how, "--no-gates")
    assert typed.stdout is not None
    assert typed.stdout.readline()  # it follows
    shell.until("the step waits", (tmp_path / "door.knocked").exists)
    if how == "killed":
        shell.kill()
    else:
        typed.send_signal(signal.SIGINT)
    _, said = typed.communicate(timeout=PATIENCE)
    assert typed.returncode == (130 if how == "interrupted" else 69), said
    step = int((tmp_path / "door.knocked").read_text())
    shell.until("nothing of it runs", lambda: has_ended(step))
    door.touch()
    if how == "interrupted":
        newest: list[Document] = []

        def told() -> bool:
            newest[:] = shell.ask("runs", how, "--limit", "1")["runs"]
            return [each["state"] for each in newest] == ["stopped"]

        shell.until("the run is recorded", told)
        assert newest[0]["steps"]["slow"] == "stopped"
    assert marks(run(shell, how)) == {"fast": "=", "slow": "ok"}
