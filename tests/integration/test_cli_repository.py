"""This file tests the commands that need no daemon, in real repositories: start, fix, data, doctor."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from branchline.adapters.git_worktree import WorkTree
from branchline.cli.main import main
from branchline.settings import default_branch
from tests.repositories import RealGit

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "housing"
BRANCH = "experiment--housing--alex"
FILE = 'kind = "app"\nserve = { command = ["serve", "{socket}"] }\ngates = { unit = { command = ["true"] } }\n'


@pytest.fixture
def world(tmp_path: Path) -> RealGit:
    return RealGit(tmp_path)


def typed(world: RealGit, *words: str) -> Result:
    """Type a command in the work tree."""
    return CliRunner().invoke(main, ["-C", str(world.work), *words], prog_name="branchline")


def service(world: RealGit, name: str = "housing", text: str = FILE) -> Path:
    """Write a service that is all right."""
    folder = world.work / name
    folder.mkdir(exist_ok=True)
    (folder / "branchline.toml").write_text(text)
    (folder / "requirements.lock").write_text("uvicorn==1.0 --hash=sha256:0\n")
    return folder


# ------------------------------------------------------------------------------------------------ starting is fast


HEAVY = {"pydantic", "fastapi", "starlette", "sqlalchemy", "alembic", "psutil", "asyncio", "sqlite3"}
HEAVY |= {"http.client", "ssl", "email", "branchline.core.spec", "branchline.adapters.servicefile"}


@pytest.mark.parametrize("words", [["--help"], ["explain", "BL412"], ["start", "--help"], ["status", "--help"]])
def test_what_starts_fast_imports_no_product(words: list[str]) -> None:
    """Killer: import pydantic, http.client or an adapter of SQLite at the top of a command's file."""
    typed = (
        f"from branchline.cli.main import main\ntry: main({words!r})\nexcept SystemExit as ended: assert not ended.code"
    )
    assert imported(typed) & (HEAVY | {"difflib"}) == set()


def test_asking_the_daemon_imports_no_product(world: RealGit) -> None:
    """Killer: speak to it by http.client, or import the words of a service's file with the settings."""
    typed = (
        "from branchline.cli import see\nfrom branchline.cli.session import Session\n"
        f"from pathlib import Path\nassert Session(Path({str(world.work)!r})).running() is None"
    )
    assert imported(typed) & HEAVY == set()


def imported(program: str) -> set[str]:
    """What a new interpreter has imported after a program."""
    program += "\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(ran.stderr.split())


def test_outside_a_repository_it_says_so(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["-C", str(tmp_path), "check"])
    assert told.exit_code == 2
    assert "error[BL106]" in told.stderr
    assert "git init" in told.stderr


# ------------------------------------------------------------------------------------------------ start and fix


def test_start_makes_branch_and_log_commits_only_that_and_pushes(world: RealGit) -> None:
    """1.14, 1.24, 1.27: the name is the interface, the hypothesis is written; every git command is printed."""
    from branchline.core.gates import logged

    service(world)
    (world.work / "staged.txt").write_text("mine\n")
    world.git("add", "staged.txt")
    words = ("start", "housing", "--handle", "alex", "--because", "Trees see corners.", "--metric", "error, lower")
    plan = typed(world, *words, "--dry-run")
    assert plan.exit_code == 0
    assert world.git("branch", "--list", BRANCH) == ""
    told = typed(world, *words)
    assert told.exit_code == 0, told.stderr
    assert world.git("symbolic-ref", "--short", "HEAD") == BRANCH
    assert world.tip(BRANCH) == world.git("rev-parse", "HEAD")
    assert world.git("show", "--name-only", "--format=%s", "HEAD").split("\n") == [
        "Start experiment housing/alex", "", "housing/EXPERIMENT.md",
    ]  # fmt: skip
    assert "A  staged.txt" in world.git("status", "--porcelain")
    text = (world.work / "housing" / "EXPERIMENT.md").read_text()
    assert text.startswith("# Hypothesis\nTrees see corners.\n")
    mute = typed(world, "start", "housing", "--handle", "kim", "--because", " ")
    assert (mute.exit_code, "--because says nothing" in mute.stderr) == (2, True)
    assert logged(text).result.value == "pass"
    ran = [line.removeprefix("ran").strip() for line in told.stdout.splitlines()[1:]]
    assert ran == [line.removeprefix("plan     git").strip() for line in plan.stdout.splitlines()]
    assert ran[-1] == f"git push -u origin {BRANCH}"
    again = typed(world, *words)
    assert again.exit_code == 1
    assert "error[BL209]" in again.stderr


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_start_refuses_where_the_service_is_not_yet(world: RealGit, more: list[str]) -> None:
    """H5: main was committed and not pushed. Killer: branch off the trunk without looking what it has."""
    service(world)
    world.git("add", "housing")
    world.git("commit", "--quiet", "-m", "Add housing")
    words = ("start", "housing", "--handle", "alex", "--because", "x", *more)
    told = typed(world, *words)
    assert told.exit_code == 2
    where = "origin/main has no housing/branchline.toml"
    assert f"error[BL109]: {where}; your main is 1 commit ahead, and has it" in told.stderr
    assert "hint:  git push origin main\n" in told.stderr
    assert (world.git("branch", "--list", BRANCH), world.tip(BRANCH)) == ("", "")
    assert WorkTree(world.work).branch == "main"
    world.write("main", {"other.txt": "theirs"})
    world.git("fetch", "--quiet")
    assert "hint:  git pull --no-rebase origin main && git push origin main\n" in typed(world, *words).stderr
    world.git("pull", "--quiet", "--no-rebase", "--no-edit", "origin", "main")
    world.git("push", "--quiet", "origin", "main")
    assert typed(world, *words).exit_code == 0


@pytest.mark.parametrize(
    ("remote", "place", "push"), [(True, "origin/main", " && git push origin main"), (False, "main", "")]
)
def test_start_says_how_a_service_gets_from_a_branch_to_the_trunk(
    tmp_path: Path, remote: bool, place: str, push: str
) -> None:
    world = RealGit(tmp_path, remote=remote)
    world.git("switch", "--quiet", "-c", "draft")
    service(world)
    world.git("add", "housing")
    world.git("commit", "--quiet", "-m", "Add housing")
    told = typed(world, "start", "housing", "--handle", "alex", "--because", "x")
    assert told.exit_code == 2
    assert f"{place} has no housing/branchline.toml; draft is 1 commit ahead, and has it" in told.stderr
    assert f"hint:  git switch main && git merge draft{push}\n" in told.stderr
    assert WorkTree(world.work).branch == "draft"


def test_start_takes_metric_and_handle_from_what_is_there(world: RealGit) -> None:
    shutil.copytree(EXAMPLE / "housing", world.work / "housing")
    (world.work / "housing" / "EXPERIMENT.md").unlink()
    told = typed(world, "start", "housing", "--because", "x", "--no-push")
    assert told.exit_code == 0, told.stderr
    assert "experiment--housing--test " in told.stdout
    assert world.tip("experiment--housing--test") == ""
    text = (world.work / "housing" / "EXPERIMENT.md").read_text()
    assert "`abs_pct_error`, lower is better; an effect of 3 is worth a change." in text


def test_start_loses_no_log_that_is_not_committed(world: RealGit) -> None:
    folder = service(world)
    (folder / "EXPERIMENT.md").write_text("mine\n")
    told = typed(world, "start", "housing", "--because", "x")
    assert told.exit_code == 2
    assert "error[BL108]" in told.stderr
    assert (folder / "EXPERIMENT.md").read_text() == "mine\n"


def test_without_a_remote_the_repository_itself_is_the_truth(tmp_path: Path) -> None:
    world = RealGit(tmp_path, remote=False)
    service(world)
    told = typed(world, "start", "housing", "--handle", "alex", "--because", "x")
    assert told.exit_code == 0, told.stderr
    assert "push" not in told.stdout
    assert world.tip(BRANCH)


def test_a_fix_begins_at_the_right_base(world: RealGit) -> None:
    """The incumbent -> the trunk; a challenger -> its branch."""
    world.write("main", {"housing/branchline.toml": FILE})
    challenger = world.write(BRANCH, {"housing/serving.py": "x = 1\n"})
    world.git("pull", "--quiet")
    assert typed(world, "fix", "housing", "--handle", "typo", "--dry-run").stdout.splitlines() == [
        "plan     git      git fetch --prune origin",
        "plan     git      git switch --no-track -c fix--housing--typo origin/main",
    ]
    told = typed(world, "fix", "housing", "--handle", "typo")
    assert told.exit_code == 0, told.stderr
    assert WorkTree(world.work).branch == "fix--housing--typo"
    assert WorkTree(world.work).head == world.tip("main")
    told = typed(world, "fix", "housing", "--handle", "typo", "--on", "alex")
    assert told.exit_code == 0, told.stderr
    assert WorkTree(world.work).branch == "fix--housing--typo--alex"
    assert WorkTree(world.work).head == challenger


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_dry_run_refuses_what_the_real_one_refuses(world: RealGit, more: list[str]) -> None:
    """Killer: print the plan without looking where it would begin."""
    service(world)
    told = typed(world, "fix", "housing", *more)
    assert told.exit_code == 2
    assert "error[BL109]: main holds no housing/branchline.toml" in told.stderr
    assert "branchline start" in told.stderr
    world.write(BRANCH, {"housing/branchline.toml": FILE})
    world.git("fetch", "--quiet")
    told = typed(world, "fix", "housing", "--on", "nobody", *more)
    assert (told.exit_code, "error[BL104]" in told.stderr) == (2, True)
    told = typed(world, "start", "housing", "--handle", "alex", "--because", "x", *more)
    assert (told.exit_code, "error[BL209]" in told.stderr) == (1, True)
    assert WorkTree(world.work).branch == "main"


def test_the_project_says_which_branch_shows_what_serves(world: RealGit) -> None:
    """Killer: ask git alone for the default branch."""
    world.write("next/shown", {"housing/branchline.toml": FILE})
    world.git("fetch", "--quiet")
    service(world)
    project = world.work / "branchline.toml"
    project.write_text('[project]\nname = "shop"\ndefault_branch = "next/shown"\n')
    assert default_branch(WorkTree(world.work)) == "next/shown"
    told = typed(world, "start", "housing", "--handle", "alex", "--because", "x", "--dry-run")
    assert f"git switch --no-track -c {BRANCH} origin/next/shown" in told.stdout
    assert "origin/next/shown" in typed(world, "fix", "housing", "--dry-run").stdout
    project.write_text('[project]\nname = "shop"\ndefault_brunch = "next/shown"\n')
    for words in (("check",), ("start", "housing", "--because", "x"), ("fix", "housing")):
        told = typed(world, *words)
        assert (told.exit_code, "did you mean default_branch?" in told.stderr) == (2, True)
    project.unlink()
    assert default_branch(WorkTree(world.work)) == "main"


def test_deploy_of_a_branch_that_means_nothing_says_what_would(world: RealGit) -> None:
    service(world)
    told = typed(world, "deploy")
    assert told.exit_code == 2
    assert "experiment--SERVICE--HANDLE" in told.stderr
    assert "error[BL109]: 'main' is neither an experiment nor a fix" in typed(world, "deploy", "main").stderr
    assert "error[BL109]: there is no branch 'mian'" in typed(world, "deploy", "mian").stderr


def test_deploy_says_what_it_leaves_out_also_when_it_only_plans(world: RealGit) -> None:
    service(world)
    typed(world, "start", "housing", "--handle", "alex", "--because", "x", "--no-push")
    assert "not committed are not deployed" in typed(world, "deploy", "--dry-run").stderr


def test_completion_knows_the_services_and_branches_of_the_folder(
    world: RealGit, monkeypatch: pytest.MonkeyPatch
) -> None:
    service(world)
    typed(world, "start", "housing", "--handle", "alex", "--because", "x", "--no-push")
    monkeypatch.chdir(world.work)

    def completed(words: str) -> list[str]:
        environ = {"_BRANCHLINE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        told = CliRunner().invoke(main, [], prog_name="branchline", env=environ)
        return [line.partition(",")[2] for line in told.stdout.splitlines() if line]

    assert completed("branchline why ") == ["housing", BRANCH]
    assert completed("branchline deploy exp") == [BRANCH]
    assert completed("branchline freeze ") == ["housing"]
    monkeypatch.chdir("/")
    assert completed("branchline why ") == []


def test_a_group_of_commands_alone_is_asked_for_help(world: RealGit) -> None:
    told = typed(world, "data")
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.startswith("Usage: branchline data ")


# ------------------------------------------------------------------------------------------------ data


def test_data_is_pinned_beside_the_service_file(world: RealGit) -> None:
    """Pinned from the first day: rows, files and the digest of what was read."""
    folder = service(world, text='data = { sales = "data/*.csv", zones = "zones.txt" }\n' + FILE)
    (world.work / "data").mkdir()
    (world.work / "data" / "a.csv").write_text("x\n1\n2\n")
    (world.work / "zones.txt").write_text("n\n")
    assert "plan" in typed(world, "data", "update", "--dry-run").stdout
    assert not (folder / "data.lock").exists()
    told = typed(world, "data", "update", "sales")
    assert told.exit_code == 0, told.stderr
    lock = json.loads((folder / "data.lock").read_text())
    assert {name: (each["files"], each["rows"]) for name, each in lock.items()} == {"sales": (1, 2)}
    assert "zones of housing is not pinned" in typed(world, "data", "log", "housing").stderr
    assert typed(world, "data", "update", "housing").exit_code == 0
    assert set(json.loads((folder / "data.lock").read_text())) == {"sales", "zones"}
    (world.work / "data" / "b.csv").write_text("x\n3\n")
    told = typed(world, "data", "update")
    assert f"was {lock['sales']['digest'][:8]}, 2 rows" in told.stdout
    shown = json.loads(typed(world, "data", "log", "sales", "--json").stdout)
    assert shown["schema"] == "branchline.data/1"
    assert shown["sources"]["sales"]["rows"] == 3
    assert typed(world, "data", "update", "seles").exit_code == 2


def notes(world: RealGit) -> list[str]:
    """What `check` has to say of what is all right."""
    told = typed(world, "check", "--json")
    assert told.exit_code == 0, told.stdout
    return [f"{each['code']} {each['text'].partition(' hint: ')[0]}" for each in json.loads(told.stdout)["notices"]]


def test_check_says_of_data_that_it_was_changed_since_it_was_pinned(world: RealGit) -> None:
    """Killers: look at nothing but the lock; take a file that was only touched for another one."""
    service(world, text='data = { sales = "data/*.csv" }\n' + FILE)
    (world.work / "data").mkdir()
    file = world.work / "data" / "a.csv"
    file.write_text("x\n1\n2\n")
    assert typed(world, "data", "update").exit_code == 0
    assert notes(world) == []
    file.touch()
    assert notes(world) == []
    file.write_text("x\n1\n3\n")
    changed = ["BL310 sales of housing was changed since it was pinned"]
    assert notes(world) == changed
    assert "hint:  branchline data update sales" in typed(world, "check").stdout
    file.write_text("x\n1\n2\n")
    assert notes(world) == []
    (world.work / "data" / "b.csv").write_text("x\n")
    assert notes(world) == changed
    assert typed(world, "data", "update").exit_code == 0
    assert notes(world) == []
    shutil.rmtree(world.work / "data")
    assert notes(world) == [], "what is pinned is in the store"


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ("uvicorn\n", ""), ("uvicorn[standard]>=0.9\n# tools\n-r other.txt\n", ""), ("Uvicorn==1.0.0\n", ""),
        ("uvicorn==1.*\n", ""), ("tomli; python_version < '3.11'\nhttps://example.org/x.whl\n", ""),
        ("uvicorn\nhttpx>=0.27  # asks\n", "httpx>=0.27"), ("uvicorn == 1.1\n", "uvicorn == 1.1"),
    ],
)  # fmt: skip
def test_check_says_of_a_lock_that_it_is_behind(world: RealGit, asked: str, missing: str) -> None:
    """Killers: compare words; ask for what only other machines need."""
    folder = service(world)
    (folder / "requirements.in").write_text(asked)
    said = f"BL311 housing/requirements.lock is behind requirements.in: {missing}"
    assert notes(world) == ([said] if missing else [])
    if missing:
        assert "pip compile --generate-hashes requirements.in -o requirements.lock)" in typed(world, "check").stdout


def test_the_versions_of_a_source_are_told_with_what_changed(world: RealGit) -> None:
    """1.17, 3.30: who pinned which version, its rows, its columns; here and on the trunk, and what is not committed.

    Killers: tell what is pinned now only; tell of a version twice.
    """
    folder = service(world, text='data = { sales = "data/*.csv" }\n' + FILE)
    (world.work / "data").mkdir()

    def pinned(name: str, text: str) -> str:
        (world.work / "data" / name).write_text(text)
        assert typed(world, "data", "update").exit_code == 0
        return str(json.loads((folder / "data.lock").read_text())["sales"]["digest"])

    first = pinned("a.csv", "id,price\n1,10\n2,20\n")
    world.git("add", ".")
    world.git("commit", "-qm", "Pin sales")
    world.git("commit", "-q", "--allow-empty", "-m", "Else")
    (folder / "data.lock").write_text("broken")
    world.git("commit", "-qam", "Break it")
    second = pinned("b.csv", "id,price,zone\n3,many,N\n")
    told = typed(world, "data", "log", "sales")
    assert told.exit_code == 0, told.stderr
    lines = [line.strip() for line in told.stdout.splitlines()]
    assert lines[0].startswith(f"=   housing sales      {second[:8]}  2 files  3 rows (+1)")
    assert lines[0].endswith("not committed")
    assert lines[1:3] == ["column zone is new", "column price is text, was number"]
    assert lines[3].startswith(f"housing sales      {first[:8]}  1 file  2 rows")
    world.git("commit", "-qam", "Pin more")
    shown = json.loads(typed(world, "data", "log", "sales", "--json").stdout)["versions"]["sales"]
    assert [(each["digest"], each["subject"], each["pinned"]) for each in shown] == [
        (second, "Pin more", True),
        (first, "Pin sales", False),
    ]
    assert shown[0]["made"] == []


def test_a_service_without_data_is_told_as_such(world: RealGit) -> None:
    told = typed(world, "data", "update")
    assert (told.exit_code, "error[BL109]" in told.stderr) == (2, True)
    service(world)
    for words in (("update",), ("update", "--dry-run"), ("log",), ("log", "housing")):
        told = typed(world, "data", *words)
        assert told.exit_code == 0
        assert (told.stdout, "housing declares no data" in told.stderr) == ("", True)
    assert json.loads(typed(world, "data", "log", "--json").stdout)["sources"] == {}


def test_data_that_is_not_there_is_refused(world: RealGit) -> None:
    service(world, text='data = { sales = "data/*.csv" }\n' + FILE)
    told = typed(world, "data", "update")
    assert told.exit_code == 1
    assert "error[BL323]" in told.stderr


# ------------------------------------------------------------------------------------------------ doctor


def test_doctor_finds_this_machine_well(world: RealGit) -> None:
    told = typed(world, "doctor", "--json")
    found = json.loads(told.stdout)
    assert found["schema"] == "branchline.doctor/1"
    assert [each["name"] for each in found["findings"] if not each["ok"]] == []
    assert told.exit_code == 0


def test_doctor_names_the_cure_of_what_is_missing(
    world: RealGit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BRANCHLINE_ENVOY", str(tmp_path / "none"))
    told = typed(world, "doctor")
    assert told.exit_code == 1
    assert " no  envoy" in told.stdout
    assert "cure: " in told.stdout
    (tmp_path / "old").write_text("#!/bin/sh\necho 'envoy  version: abc/1.20.0/Clean/RELEASE/BoringSSL'\n")
    (tmp_path / "old").chmod(0o755)
    monkeypatch.setenv("BRANCHLINE_ENVOY", str(tmp_path / "old"))
    assert "1.20.0" in typed(world, "doctor").stdout
    outside = CliRunner().invoke(main, ["-C", str(tmp_path), "doctor"])
    assert "is not inside a git repository" in outside.stdout
