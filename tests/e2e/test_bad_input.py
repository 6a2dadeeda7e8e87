"""This file types what is wrong: names, keys, locks, steps and servers that no revision can be made of.

Each is told with its code, its cause and what to type next, and with the last lines of what failed. Afterwards the
history is what it was and goes on, the incumbent answers, and git and production agree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from branchline.adapters.uv_locks import compiling, typed
from tests.typed import SERVICE_FILE, Shell, Typed, app

ENVIRON = {"UV_OFFLINE": "1"}
# What git accepts as a branch and Branchline does not deliver (F8): shell words, options, folders, other alphabets.
ODD = (
    "experiment--shop", "experiment--shop--", "experiment----alex", "experiment--shop--alex--more", "experiment-shop-a",
    "experiment--Shop--alex", "experiment--shop--Alex", "experiment--shop--al_ex", "experiment--shop--alex-",
    "experiment--shop--" + 41 * "a", "experiment/shop/alex", "fix--shop--a--b--c", "refs/heads/experiment--shop--alex",
    "experiment--shop--$(touch${IFS}pwned)", "experiment--shop--`touch${IFS}pwned`",
    "experiment--shop--;touch${IFS}pwned",
    "experiment--shop--|touch${IFS}pwned", "experiment--shop--&pwned", "experiment--shop--'\"", "experiment--shop--%00",
    "-experiment--shop--alex", "--upload-pack=touch${IFS}pwned", "-c", "experiment--shop--\u202ealex",
    "experiment--shop--\u0430lex", "experiment--sh\u00f6p--alex", "experiment--shop--alex\u200b",
)  # fmt: skip
# What git refuses too, and what people type by mistake.
TYPED = ("../../up", "a b", "experiment--shop--a..b", "shop@{1}", "Shop", "")
RAISES = """\
def made():
    print("read 3 rows")
    raise ValueError("no column price")
"""
HANGS = """\
import subprocess


def made():
    print("asks for the answer", flush=True)
    subprocess.run(["sleep", "86411"], check=True)
"""
KILLED = """\
import os


def made():
    print("takes all memory", flush=True)
    os.kill(os.getpid(), 9)
"""
NOWHERE = "nowhere-at-all==1.0 \\\n    --hash=sha256:" + 64 * "0" + "\n"
PROJECT = '[project]\nname = "shop"\nversion = "1.0"\nrequires-python = ">=3.11"\ndependencies = ["iniconfig"]\n'
UV_LOCK = 'version = 1\nrequires-python = ">=3.11"\n\n[[package]]\nname = "shop"\nversion = "1.0"\n'
UV_LOCK += 'source = { virtual = "." }\n'
SILENT = "nothing listens on the socket that BRANCHLINE_SOCKET names"


@pytest.fixture(scope="module")
def shop(shell: Shell) -> Shell:
    """A service that serves."""
    shell.first("shop", app("shop"))
    return shell


@contextmanager
def unharmed(shell: Shell) -> Iterator[None]:
    """What was recorded stays, the incumbent answers before and after, git and production agree (I1)."""
    before, pids = shell.history(), shell.instances_of("shop", "1.0.0")
    yield
    assert shell.history()[: len(before)] == before
    assert shell.call("/shop/").revision == "shop@1.0.0"
    assert shell.instances_of("shop", "1.0.0") == pids
    shell.until_rest()
    assert shell.type("parity").code == 0


def refused(shell: Shell, handle: str, files: Mapping[str, str | None]) -> Typed:
    """Push files and deploy the branch, whose evaluation fails: what was said; asserts what is so of every failure."""
    branch = shell.push(handle, files, "shop")
    shell.mine(branch)
    with unharmed(shell):
        told = shell.type("deploy", branch, ok=1)
        row = shell.row(branch)
        assert (row["state"], row["commit"], row["share"]) == ("evaluation failed", shell.tip(branch), 0)
        assert branch in shell.heads()
        assert f"stays    {branch}: evaluation failed: error[" in told.err
        assert told.err.splitlines()[-1].startswith("next     branchline ")
        assert shell.events(branch)[-1] in ("BuildFailed", "GatesFailed")
        shell.until("nothing of it runs", lambda: all(i[1] == "1.0.0" for i in shell.running("shop")))
    return told


def step(code: str = "", table: str = 'made = "steps:made"') -> dict[str, str]:
    """The service with one step, a function or a command."""
    return app("shop", more=f"steps = {{ {table} }}") | ({"shop/steps.py": code} if code else {})


# ------------------------------------------------------------------------------------------------ names


def test_no_odd_branch_is_deployed_executed_or_an_error(shop: Shell) -> None:
    """F8, T4, 1.24: the name is the interface, and every other name means nothing."""
    commit = shop.write("notes", {"shop/NOTE": "odd\n"})
    named = "".join(f"create refs/heads/{name} {commit}\n" for name in ODD)
    with unharmed(shop):
        before, known = shop.history(), {name for name in shop.rows() if name != "shop@incumbent"}
        shop.git("update-ref", "--stdin", at=shop.truth, stdin=named)
        shop.client.post("/v1/look")
        good = shop.push("plain", {"shop/branchline.toml": "no toml"}, "shop")  # what comes later is seen
        shop.until_state(good, "evaluation failed")
        events = shop.history()[len(before) :]
        assert {entry["detail"].get("branch") for entry in events} == {good}
        rows = [row["branch"] for row in shop.status()["services"][0]["rows"] if row["phase"] != "live"]
        assert [branch for branch in rows if branch not in known] == [good]  # what failed in other tests has one, too
        assert [s["troubles"] for s in shop.status()["services"]] == [[]]
    places = (shop.folder, Path.cwd(), Path.home())
    found = ((at, name) for place in places for at, folders, files in os.walk(place) for name in (*folders, *files))
    assert [at for at, name in found if "pwned" in name and "refs/heads" not in f"{at}/{name}"] == []
    shop.git("update-ref", "--stdin", at=shop.truth, stdin="".join(f"delete refs/heads/{name}\n" for name in ODD))


@pytest.mark.parametrize("name", TYPED)
def test_no_odd_name_is_taken_by_a_command(shop: Shell, name: str) -> None:
    """F8: BL101, or not even that, with exit status 2, and nothing is changed."""
    shop.on_main()
    with unharmed(shop):
        problem = shop.refused("start", "shop", "--handle", f"{name}!", "--because", "x", ok=2)
        assert (problem["code"], problem["hint"]) == (
            "BL101", "use lower-case letters, digits and single dashes, at most 40 characters",
        )  # fmt: skip
        for command in (("deploy", name or "x"), ("status", name or "-"), ("checkout", name or "@")):
            assert shop.refused(*command, ok=2)["code"] in ("BL100", "BL101", "BL109")


def test_an_unknown_service_is_answered_with_what_was_meant(shop: Shell) -> None:
    """BL102 (F3): from the work tree and from the daemon."""
    shop.on_main()
    commands = (
        ("deploy", "experiment--shpo--alex"), ("run", "shpo"), ("start", "shpo", "--because", "x"), ("check", "shpo"),
        ("status", "shpo"), ("why", "shpo"), ("rollback", "shpo", "--yes"), ("logs", "shpo"),
    )  # fmt: skip
    with unharmed(shop):
        for words in commands:
            if words[0] == "run":
                shop.git("switch", "--quiet", "--detach", "origin/main")
            told = shop.type(*words, ok=2)
            assert told.err.splitlines()[0] == "error[BL102]: There is no service 'shpo'", words
            assert "did you mean" in told.err.lower(), words
            assert "shop" in told.err, words


# ------------------------------------------------------------------------------------------------ files


def test_wrong_keys_are_told_with_the_nearest_before_and_after_the_push(shop: Shell) -> None:
    """F1, F3, F5: `check` tells all of them in a second, a build tells the same."""
    wrong = app("shop")["shop/branchline.toml"].replace("rollout", "rolout").replace('kind = "app"\n', "")
    shop.on_main()
    (shop.work / "shop" / SERVICE_FILE).write_text(wrong, encoding="utf-8")
    try:
        told = shop.type("check", "shop", ok=2)
    finally:
        shop.git("checkout", "--quiet", "--", "shop")
    assert told.out.count("error[BL103]") == 2
    assert "did you mean rollout" in told.out
    assert "kind" in told.out
    built = refused(shop, "keys", {f"shop/{SERVICE_FILE}": wrong})
    assert "error[BL103]: shop/branchline.toml cannot be used" in built.err
    assert "did you mean rollout" in built.err
    assert "next: branchline check" in built.err


@pytest.mark.parametrize(
    ("handle", "files", "code", "cause", "hint"),
    [
        ("other", {"uv.lock": UV_LOCK, "pyproject.toml": PROJECT}, "BL401", "for another pyproject.toml: iniconfig",
         f"(cd shop && {typed()} lock)"),
        ("unhashed", {"requirements.lock": "iniconfig==2.1.0\n"}, "BL401", "iniconfig", f"(cd shop && {compiling()})"),
        ("offline", {"requirements.lock": NOWHERE}, "BL401", "nowhere-at-all",
         "see that the index can be reached, then type the same again"),
        ("unlocked", {"requirements.lock": None, "requirements.in": "iniconfig\n"}, "BL402",
         "shop asks for packages but has no lock file: requirements.in asks", f"(cd shop && {compiling()})"),
    ],
)  # fmt: skip
def test_an_environment_that_cannot_be_built_is_told(
    shop: Shell, handle: str, files: dict[str, str | None], code: str, cause: str, hint: str
) -> None:
    """F26, 2.24: nothing is installed but what is locked."""
    told = refused(shop, handle, {f"shop/{name}": text for name, text in files.items()})
    assert f"error[{code}]" in told.err
    assert cause in told.err
    assert f"next: {hint}" in told.err
    venvs = (shop.state / "envs").glob("*/venv")
    assert [path for path in venvs if not (path.parent / "environment.json").exists()] == []


@pytest.mark.parametrize(
    ("handle", "files", "code", "words"),
    [
        ("raises", step(RAISES), "BL403", ("ValueError: no column price (steps.py:3)", "read 3 rows")),
        ("hangs", step(HANGS, 'made = { call = "steps:made", seconds = 8 }'), "BL404",  # to print on a busy machine
         ("took longer than 8", "asks for the answer")),
        ("killed", step(KILLED), "BL403", ("killed (exit 137); out of memory?", "takes all memory")),
        ("killed-too", step(table='made = { command = ["sh", "-c", "echo eats; kill -9 $$"], output = "out" }'),
         "BL403", ("exit 137 (killed; out of memory?)", "eats")),
        ("nothing", step(table='made = { command = ["echo", "all is well"], output = "out" }'), "BL403",
         ("it ended well but did not write out", "all is well")),
    ],
)  # fmt: skip
def test_a_step_that_fails_is_told_with_its_last_lines(
    shop: Shell, handle: str, files: dict[str, str], code: str, words: tuple[str, str]
) -> None:
    """F14, F15, F16, F20: raised, hung, killed, nothing written; the whole tree of it ends."""
    asleep = str(86411 + os.getpid())  # not another worker's, which plays another of these at the same time
    told = refused(shop, handle, {name: text.replace("86411", asleep) for name, text in files.items()})
    assert f"error[{code}]: Step made of shop" in told.err
    for each in words:
        assert each in told.err
    assert "next: branchline logs shop" in told.err
    why = shop.ask("why", f"experiment--shop--{handle}")
    assert [(run["step"], run["state"]) for run in why["steps"]] == [("made", "failed")]
    assert [process for process in psutil.process_iter(["cmdline"]) if asleep in (process.info["cmdline"] or ())] == []


@pytest.mark.parametrize(
    ("mode", "start", "cause", "last"),
    [
        (
            "hangs",
            "8s",  # long enough to have printed its line on a busy machine
            "not ready after 8 s: nothing listens on the socket that BRANCHLINE_SOCKET names",
            "hangs starts",
        ),
        ("dies", "60s", "it ended by itself with exit 1", "no model here"),
        ("fails", "10s", "not ready after 10 s: GET / answered 500", "fails starts"),
        ("elsewhere", "8s", f"not ready after 8 s: {SILENT}", "elsewhere starts"),
    ],
    ids=["never ready", "dies at once", "answers 500", "listens elsewhere"],
)
def test_a_server_that_does_not_come_up_is_told_with_its_last_lines(
    shop: Shell, mode: str, start: str, cause: str, last: str
) -> None:
    """F63, F73, I22: never ready, dead at once, answers 500, listens elsewhere; no process of it stays."""
    told = refused(shop, mode, app("shop", mode, start=start))
    assert f"error[BL412]: shop@1.1.0-{mode}.1 did not become ready: " in told.err
    assert cause in told.err
    assert f"       {last}" in told.err.splitlines()
    assert f"next: branchline logs shop@1.1.0-{mode}.1" in told.err
    assert last in shop.type("logs", f"experiment--shop--{mode}").out


def test_a_run_whose_server_does_not_come_up_says_so(shop: Shell) -> None:
    """1.17: `run` gives the same answer as a deploy, with exit status 1, and leaves nothing."""
    shop.on_main()
    for path, text in app("shop", "dies").items():
        (shop.work / path).write_text(text, encoding="utf-8")
    try:
        with unharmed(shop):
            told = shop.type("run", "shop", ok=1)
    finally:
        shop.git("checkout", "--quiet", "--", "shop")
    lines = told.err.splitlines()
    assert any(line.startswith("error[BL412]: shop@") for line in lines)
    assert "  | no model here" in lines
    assert any(line.startswith("  cause: it ended by itself with exit 1") for line in lines)
