"""This file plays a whole release in every kind of repository: fetch, merge, push, delete, roll back.

The controller and git are real, everything else is a fake (`tests.truths`): where the truth is and how it is reached,
what a person's clone is like, what else lies in the tree. Requirements 1.30, 1.34, 1.36; faults F11, F13, F33, F35.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.git_worktree import WorkTree
from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.errors import PushRefused
from tests.remotes import PASSWORD, USER, over_http, over_ssh
from tests.repositories import RealGit
from tests.truths import Story
from tests.world import ALEX, APP, LOG, MODEL, SAM

pytestmark = pytest.mark.slow
FILES = 10_000  # in one tree
SERVICES = 50  # in one tree


def release(story: Story) -> tuple[str, str]:
    """A first revision, a challenger that wins, a rollback; each is in the truth as it should be."""
    first = story.push()
    story.settle()
    assert (story.phase(ALEX), story.troubles()) == (Phase.LIVE, [])
    assert story.git.folder_of("main") == story.git.folder_of(first)
    second = story.push(SAM)
    story.settle()
    assert (story.phase(SAM), story.troubles()) == (Phase.TESTING, [])
    story.record(law.Won(SAM))
    story.settle()
    assert (story.phase(SAM), story.troubles()) == (Phase.LIVE, [])
    assert story.git.folder_of("main") == story.git.folder_of(second)
    assert story.git.parents(story.git.tip("main"))[1:] == (second,)
    story.ask("rollback", "housing")
    story.settle()
    assert story.git.folder_of("main") == story.git.folder_of(first)
    assert heads(story) == {"main"}
    kept = story.git.git("for-each-ref", "--format=%(refname)", "refs/tags/", "refs/branchline/", at=story.git.truth)
    assert {"refs/tags/housing@v1.0.0", "refs/tags/housing@v1.1.0"} <= set(kept.splitlines())
    assert f"refs/branchline/archive/{SAM}/{second}" in kept
    assert (story.drifts(), story.troubles()) == ([], [])
    return first, second


def heads(story: Story) -> set[str]:
    """The branches of the truth."""
    return set(story.git.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/", at=story.git.truth).split())


def person(story: Story, branch: str) -> WorkTree:
    """A person's commands at the place of their clone: start, commit, push."""
    tree = WorkTree(story.git.work)
    tree.start(branch, tree.trunk())
    (tree.root / "note.md").write_text("mine\n")
    tree.record("note.md", "A note")
    tree.push(branch)
    assert story.git.tip(branch) == tree.head
    return tree


# ------------------------------------------------------------------------------------------------ where the truth is


def test_without_a_remote_the_repository_itself_is_the_truth(tmp_path: Path) -> None:
    story = Story(tmp_path, remote=False)
    release(story)
    story.git.git("switch", "--quiet", "main")
    person(story, "experiment--other--kim")


@pytest.mark.parametrize("address", ["../remote.git", "{}", "file://{}"], ids=["relative", "absolute", "file"])
def test_a_bare_repository_by_its_path(tmp_path: Path, address: str) -> None:
    story = Story(tmp_path)
    story.git.git("config", "remote.origin.url", address.format(story.git.truth))
    release(story)
    person(story, "experiment--other--kim")


@pytest.fixture
def http(tmp_path: Path) -> Iterator[str]:
    with over_http(tmp_path) as address:
        yield address


def test_over_http_with_the_persons_own_credentials(tmp_path: Path, http: str) -> None:
    """They are taken from the person's git, and stand on no command line and in no message (I20)."""
    story = Story(tmp_path)
    story.git.git("config", "remote.origin.url", f"{http}/remote.git")
    first = story.push()
    story.settle()
    assert story.service().candidates == ()
    (told,) = story.troubles()
    assert told.startswith("BL202")
    keys = tmp_path / "credentials"
    keys.write_text(http.replace("://", f"://{USER}:{PASSWORD}@") + "\n")
    story.git.git("config", "credential.helper", f"store --file={keys}")
    story.settle()
    assert (story.phase(ALEX), story.on(ALEX).revision) == (Phase.LIVE, first)
    second = story.push(SAM, files={"large.bin": "0123456789abcdef" * 200_000})
    story.settle()
    story.record(law.Won(SAM))
    story.settle()
    assert story.git.parents(story.git.tip("main"))[1:] == (second,)
    assert heads(story) == {"main"}
    person(story, "experiment--other--kim")
    assert (story.drifts(), story.troubles()) == ([], [])


def test_over_http_a_forge_that_refuses_is_told_in_its_words(tmp_path: Path, http: str) -> None:
    story = Story(tmp_path)
    story.git.git("config", "remote.origin.url", http.replace("://", f"://{USER}:{PASSWORD}@") + "/remote.git")
    story.git.hook("update", 'case $1 in refs/heads/main) echo "GH006: protected branch" >&2; exit 1;; esac')
    story.push()
    story.settle()
    assert (story.phase(ALEX), story.on(ALEX).trouble) == (Phase.CONCLUDING, "permission")
    told = " ".join(story.troubles())
    assert "GH006: protected branch" in told
    assert PASSWORD not in told
    story.git.hook("update", "")
    story.settle()
    assert (story.phase(ALEX), story.troubles()) == (Phase.LIVE, [])


def test_over_ssh_with_the_persons_own_key(tmp_path: Path) -> None:
    story = Story(tmp_path / "repo")
    with over_ssh(tmp_path / "ssh") as (address, command):
        story.git.git("config", "remote.origin.url", f"{address}{story.git.truth}")
        story.git.git("config", "core.sshCommand", command)
        release(story)
        person(story, "experiment--other--kim")
        story.git.refusing = True
        with pytest.raises(PushRefused):
            story.git.repository.push("refs/heads/other", story.git.tip("main"), "")
        story.git.refusing = False
    story.settle()
    (told,) = story.troubles()
    assert told.startswith("BL202")


# ------------------------------------------------------------------------------------------------ a person's clone


def cloned(folder: Path, *how: str) -> Story:
    """A truth with some history, and a clone of it as a person may have made it."""
    story = Story(folder)
    for n in range(5):
        story.git.write("main", {"README.md": f"{n}\n"})
    story.git.work = folder / "clone"
    story.git.git("clone", "--quiet", *how, f"file://{story.git.truth}", str(story.git.work), at=folder)
    story.start()
    return story


@pytest.mark.parametrize("how", [("--depth=1",), ("--depth=1", "--no-single-branch"), ("--filter=blob:none",)])
def test_a_shallow_or_partial_clone_is_as_good_as_any(tmp_path: Path, how: tuple[str, ...]) -> None:
    """The mirror is whole: it is made from the remote, and borrows nothing of the clone."""
    story = cloned(tmp_path, *how)
    release(story)
    tree = person(story, "experiment--other--kim")
    (tree.root / "draft.md").write_text("not committed\n")
    snapshot = tree.snapshot()
    mirror = story.controller.ports.repository
    mirror.export(snapshot, tmp_path / "laid")
    assert (tmp_path / "laid" / "draft.md").read_text() == "not committed\n"


def test_a_shallow_clone_that_lost_its_remote_is_its_own_truth(tmp_path: Path) -> None:
    story = cloned(tmp_path, "--depth=1")
    story.git.git("remote", "remove", "origin")
    story.git.truth = story.git.work / ".git"
    story.git.git("switch", "--quiet", "--detach")
    story.start()
    release(story)


@pytest.mark.parametrize("remote", [True, False], ids=["remote", "alone"])
def test_from_a_linked_work_tree(tmp_path: Path, remote: bool) -> None:
    """One state for all work trees of a repository; who has the trunk checked out cleanly follows it."""
    story = Story(tmp_path, remote=remote)
    main = story.git.work
    linked = tmp_path / "linked"
    story.git.git("switch", "--quiet", "--detach")
    story.git.git("worktree", "add", "--quiet", str(linked), "main")
    assert WorkTree(linked).common == WorkTree(main).common
    story.git.work = linked
    story.start()
    release(story)
    if not remote:
        assert story.git.git("status", "--porcelain") == ""
        assert story.git.git("rev-parse", "HEAD") == story.git.tip("main")
        assert (linked / "housing" / "branchline.toml").exists()
    person(story, "experiment--other--kim")
    assert story.git.git("symbolic-ref", "--short", "HEAD", at=linked) == "experiment--other--kim"
    assert story.git.git("rev-parse", "--abbrev-ref", "HEAD", at=main) == "HEAD"


# ------------------------------------------------------------------------------------------------ what is in the tree


def test_a_submodule_elsewhere_in_the_tree_stays_what_it_is(tmp_path: Path) -> None:
    """F11: it is neither fetched nor delivered; a trunk that moves it on meanwhile keeps that."""
    story = Story(tmp_path)
    other = RealGit(tmp_path / "other", remote=False)
    story.git.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.work), "vendor/lib")
    story.git.git("commit", "--quiet", "-m", "Add a submodule")
    story.git.git("push", "--quiet", "origin", "main")
    first = story.push()
    story.settle()
    assert (story.phase(ALEX), story.troubles()) == (Phase.LIVE, [])
    assert list((story.ports.state / "trees" / "housing" / first / "vendor" / "lib").iterdir()) == []
    story.push(SAM)
    story.settle()
    newer = other.write("main", {"README.md": "newer\n"})
    story.git.git("fetch", "--quiet", "origin")
    story.git.git("reset", "--quiet", "--hard", "origin/main")
    story.git.git("update-index", "--cacheinfo", f"160000,{newer},vendor/lib")
    story.git.git("commit", "--quiet", "-m", "Move it on")
    story.git.git("push", "--quiet", "origin", "main")
    story.record(law.Won(SAM))
    story.settle()
    assert (story.phase(SAM), story.troubles()) == (Phase.LIVE, [])
    assert story.git.git("rev-parse", "main:vendor/lib", at=story.git.truth) == newer
    assert not WorkTree(story.git.work).is_dirty(["housing"])


@pytest.mark.parametrize("remote", [True, False], ids=["remote", "alone"])
def test_paths_with_spaces_and_in_any_script(tmp_path: Path, remote: bool) -> None:
    """The repository's own path, the service's folder and what it shares."""
    place = tmp_path / "Mes dépôts" / "家 (new) 'a' & b"
    story = Story(place, remote=remote)
    folder, shared = "modèles de prix/ämter/housing", "gemeinsam/ein zug [1].py"
    tip = story.git.write(ALEX, {f"{folder}/{path}": text for path, text in files_of(shared).items()} | {shared: "1\n"})
    story.settle()
    assert (story.phase(ALEX), story.troubles()) == (Phase.LIVE, [])
    second = story.git.write(SAM, {f"{folder}/größe *.txt": "2\n", "docs/ein Wort.md": "3\n", shared: "2\n"})
    story.settle()
    story.record(law.Won(SAM))
    story.settle()
    assert (story.phase(SAM), story.troubles()) == (Phase.LIVE, [])
    assert story.git.folder_of("main", folder) == story.git.folder_of(second, folder)
    assert tip in story.git.git("rev-list", "main", at=story.git.truth)
    laid = story.ports.state / "trees" / "housing" / second
    assert (laid / folder / "größe *.txt").read_text() == (laid / shared).read_text() == "2\n"
    assert (story.drifts(), heads(story)) == ([], {"main"})


def files_of(shared: str) -> dict[str, str]:
    """The files of a service that is all right, by their paths in its folder."""
    return {
        "branchline.toml": f'shared = ["{shared}"]\n{MODEL}',
        "says.json": '{"train": {"loss": 1}, "unit": true}',
        "EXPERIMENT.md": LOG,
        "serving.py": "def predict(request): ...\n",
        "steps.py": "def train(): ...\n",
        "gates.py": "def unit(train): ...\n",
        "requirements.lock": "uvicorn==1.0\n",
    }


def test_ten_thousand_files(tmp_path: Path) -> None:
    """Every one of them comes along, and a trunk that moves hundreds of them meanwhile is merged."""
    story = Story(tmp_path)
    many = {f"data/{n % 100:02}/{n:05}.txt": f"{n}\n" for n in range(FILES)}
    story.git.write("main", many)
    first = story.push()
    story.settle()
    assert (story.phase(ALEX), story.troubles()) == (Phase.LIVE, [])
    laid = story.ports.state / "trees" / "housing" / first
    assert sum(1 for path in (laid / "data").rglob("*.txt")) == FILES
    story.push(SAM, files={"data/mine.txt": "mine\n"})
    story.settle()
    story.git.write("main", dict.fromkeys([*many][:300], "moved\n"))
    story.record(law.Won(SAM))
    story.settle()
    assert (story.phase(SAM), story.troubles()) == (Phase.LIVE, [])
    assert len(story.git.git("ls-tree", "-r", "--name-only", "main", "data", at=story.git.truth).splitlines()) == FILES
    assert story.git.read("main", next(iter(many))) == b"moved"


def test_in_a_monorepo_a_branch_is_one_services_only(tmp_path: Path) -> None:
    """Others lie in the tree, unreleased and released; they are not built, not written and not behind."""
    story = Story(tmp_path)
    folders = {f"team-{n % 7}/service-{n:02}": files_of("lib/x.py") for n in range(SERVICES)}
    story.git.write(
        "main", {f"{folder}/{path}": text for folder, files in folders.items() for path, text in files.items()}
    )
    for name in ("housing", "listings"):
        story.push(f"experiment--{name}--first", APP)
    story.settle()
    tasks, before, tree = len(story.runner.tasks), len(story.ledger.entries), story.git.folder_of("main", "listings")
    story.push(SAM)
    story.settle()
    story.record(law.Won(SAM))
    story.settle()
    assert {entry.service for entry in story.ledger.entries[before:]} == {"housing"}
    assert all("/housing/" in str(task.cwd) for task in story.runner.tasks[tasks:])
    assert (story.phase(SAM), story.git.folder_of("main", "listings")) == (Phase.LIVE, tree)
    assert set(story.ledger.services()) == {"housing", "listings"}
    assert (story.drifts(), story.troubles(), heads(story)) == ([], [], {"main"})
