"""This file hands the git adapter hostile and odd repositories: nothing of theirs runs, nothing leads out.

Faults F8, F11 to F13; threats T4, T14; invariants I20, I25.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from branchline.adapters.git_mirror import Mirror
from branchline.errors import BadName, RemoteUnreachable, UnsafeTree
from branchline.ports import Stamp
from tests.repositories import RealGit

BRANCH = "experiment--housing--alex"
ODD = [
    "$(id)",
    "`id`",
    "a;b",
    "a|b",
    "a&b",
    "${IFS}",
    "exp\u202eeriment",
    "Ä",
    "experiment--Housing--alex",
    "a'b",
    'a"b',
]


@pytest.fixture
def world(tmp_path: Path) -> RealGit:
    return RealGit(tmp_path)


# ------------------------------------------------------------------------------------------------ names


def test_odd_branches_are_seen_and_nothing_more(world: RealGit) -> None:
    """F8, M23: git takes these names; they come as data and never reach a command line."""
    tip = world.tip("main")
    for name in [*ODD, "--upload-pack=touch"]:
        path = world.truth / "refs" / "heads" / name
        path.write_text(tip + "\n")
    assert set(world.repository.fetch()) >= {"main", *ODD}
    for name in ODD[:7]:
        with pytest.raises(BadName):
            world.repository.shows(name, "housing", ["housing"], [])
        with pytest.raises(BadName):
            world.writer.delete("housing", name, tip, Stamp(1, 1))
    assert not list(world.folder.rglob("x"))


# ------------------------------------------------------------------------------------------------ foreign code


def test_nothing_of_the_users_configuration_runs_in_the_mirror(world: RealGit, monkeypatch: pytest.MonkeyPatch) -> None:
    """F13: hooks, filters, fsmonitor, attributes, merge drivers, whichever file they stand in."""
    ran = world.folder / "ran"
    evil = world.folder / "evil"
    evil.mkdir()
    for hook in ("reference-transaction", "post-checkout", "pre-push", "post-merge", "pre-commit", "post-index-change"):
        (evil / hook).write_text(f"#!/bin/sh\necho {hook} >> {ran}\n")
        (evil / hook).chmod(0o755)
    runs = ("filter.evil.smudge", "filter.evil.clean", "merge.evil.driver", "diff.evil.command", "core.fsmonitor",
            "gpg.program", "core.pager", "core.editor")  # fmt: skip
    settings = {key: f"echo {key} >> {ran}" for key in runs}
    settings |= {"core.hooksPath": str(evil), "core.attributesFile": str(evil / "attributes"), "commit.gpgSign": "true"}
    (evil / "attributes").write_text("* filter=evil merge=evil diff=evil\n")
    home = world.folder / "home.config"
    for key, value in settings.items():
        world.git("config", "--file", str(home), key, value)
        world.git("config", key, value)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", f"echo x >> {ran}")
    world.write("main", {".gitattributes": "* filter=evil merge=evil diff=evil\n", "docs/a.md": "1\n2\n3\n"})
    one = world.write(BRANCH, {"housing/model.py": "one\n", "docs/a.md": "1\n2\n3 mine\n"})
    world.write("main", {"docs/a.md": "1 theirs\n2\n3\n", "other": "x\n"})
    ran.unlink(missing_ok=True)
    made = Mirror(world.folder / "mirror.git", world.work)
    made.fetch()
    made.log("", one, ["housing"])
    made.export(one, world.folder / "out")
    assert not ran.exists(), ran.read_text()


@pytest.mark.parametrize("address", ["ext::touch ran", "evil::address"])
def test_an_address_that_is_a_program_is_not_run(world: RealGit, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """F13: there is a list of allowed protocols, whatever the user's settings say."""
    program = world.folder / "bin" / "git-remote-evil"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {world.folder}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    world.git("config", "remote.origin.url", address.replace("ran", f"{world.folder}/ran"))
    world.git("config", "protocol.ext.allow", "always")
    with pytest.raises(RemoteUnreachable):
        world.repository.fetch()
    assert not (world.folder / "ran").exists()


def test_variables_that_turn_git_elsewhere_are_not_passed_on(world: RealGit, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    ):
        monkeypatch.setenv(name, str(world.folder / "nowhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "remote.origin.url")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "/nowhere")
    made = Mirror(world.folder / "mirror.git", world.work)
    assert set(made.fetch()) == {"main"}


def test_the_mirror_borrows_no_objects(world: RealGit) -> None:
    """F13, I25: the user's repository may lose them."""
    world.repository.fetch()
    assert not (world.repository.path / "objects" / "info" / "alternates").exists()


# ------------------------------------------------------------------------------------------------ the way to the truth


def test_the_users_ssh_command_and_shorter_addresses_are_used(world: RealGit) -> None:
    """core.sshCommand, url.*; a wrapper stands for ssh and starts what it is asked for."""
    wrapper = world.folder / "ssh"
    wrapper.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" >> "$0.log"\neval "$last"\n')
    wrapper.chmod(0o755)
    world.git("config", "core.sshCommand", str(wrapper))
    world.git("config", "ssh.variant", "simple")
    world.git("config", "url.ssh://host/.insteadOf", "short:")
    world.git("config", "remote.origin.url", f"short:{world.truth}")
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    assert world.repository.fetch()[BRANCH] == one
    world.writer.delete("housing", BRANCH, one, Stamp(1, 1))
    assert world.tip(BRANCH) == ""
    assert "git-upload-pack" in (world.folder / "ssh.log").read_text()


def test_secrets_of_the_users_configuration_are_kept_from_others(world: RealGit) -> None:
    """I20."""
    world.git("config", "http.https://host/.extraHeader", "Authorization: Bearer s3cret")
    world.repository.fetch()
    file = world.repository.path / "user.config"
    assert "s3cret" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(world.repository.path.stat().st_mode) == 0o700


def test_a_changed_address_is_noticed(world: RealGit) -> None:
    world.repository.fetch()
    moved = world.folder / "moved.git"
    world.truth.rename(moved)
    with pytest.raises(RemoteUnreachable):
        world.repository.fetch()
    world.git("config", "remote.origin.url", str(moved))
    assert set(world.repository.fetch()) == {"main"}


# ------------------------------------------------------------------------------------------------ exporting


def test_files_come_as_they_are(world: RealGit, tmp_path: Path) -> None:
    """No attribute changes or hides anything; programs stay programs; links inside stay links."""
    attributes = "* text eol=crlf ident\n*.md export-ignore\nsubst export-subst\n"
    world.write(
        BRANCH, {".gitattributes": attributes, "housing/a.md": "a\n$Id$\n", "subst": "$Format:%H$\n", "empty": ""}
    )
    world.write(BRANCH, {"housing/run": "#!/bin/sh\n"}, mode="100755")
    tip = world.write(BRANCH, {"housing/link": "../subst", "folder": "housing"}, mode="120000")
    world.repository.fetch()
    out = tmp_path / "out"
    world.repository.export(tip, out)
    assert (out / "housing" / "a.md").read_bytes() == b"a\n$Id$\n"
    assert (out / "subst").read_bytes() == b"$Format:%H$\n"
    assert (out / "empty").read_bytes() == b""
    assert os.access(out / "housing" / "run", os.X_OK)
    assert not os.access(out / "housing" / "a.md", os.X_OK)
    assert os.readlink(out / "housing" / "link") == "../subst"
    assert (out / "folder" / "a.md").is_file()


@pytest.mark.parametrize(
    ("path", "text", "mode"),
    [
        ("housing/passwd", "/etc/passwd", "120000"),
        ("housing/up", "../../x", "120000"),
        ("housing/model", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "100644"),
    ],
)
def test_what_cannot_be_delivered_is_refused_in_the_closure_only(
    world: RealGit, tmp_path: Path, path: str, text: str, mode: str
) -> None:
    """F11, F12."""
    tip = world.write(BRANCH, {path: text}, mode=mode)
    world.repository.fetch()
    for closure in ((), ("housing",), ("other", "housing/")):
        with pytest.raises(UnsafeTree) as told:
            world.repository.export(tip, tmp_path / "out", closure)
        assert told.value.fields["path"] == path
        assert not list(tmp_path.glob("*out*"))
    world.repository.export(tip, tmp_path / "out", ["hous", "other"])
    assert not (tmp_path / "out" / "housing" / "passwd").is_symlink()


def test_a_submodule_is_refused_in_the_closure_and_empty_outside(world: RealGit, tmp_path: Path) -> None:
    """F11."""
    rows = f"commit refs/heads/{BRANCH}\ncommitter A <a@b> 1 +0000\ndata 1\nx\nM 160000 {'1' * 40} housing/sub\n\n"
    world.git("fast-import", "--quiet", at=world.truth, stdin=rows)
    tip = world.tip(BRANCH)
    world.repository.fetch()
    with pytest.raises(UnsafeTree):
        world.repository.export(tip, tmp_path / "out", ["housing"])
    world.repository.export(tip, tmp_path / "out", ["other"])
    assert list((tmp_path / "out" / "housing" / "sub").iterdir()) == []


@pytest.mark.parametrize("name", [".git", ".GIT", "git~1", ".."])
def test_a_tree_with_a_path_like_dot_git_is_not_even_received(world: RealGit, name: str) -> None:
    """F11, F13: made by hand, for git itself would not."""
    blob = world.git("hash-object", "-w", "--stdin", at=world.truth, stdin="evil\n")
    raw = b"40000 x\x00"
    inner = b"100644 config\x00" + bytes.fromhex(blob)
    tree = _object(world, "tree", inner)
    raw = b"40000 " + name.encode() + b"\x00" + bytes.fromhex(tree)
    outer = _object(world, "tree", raw)
    commit = _object(
        world, "commit", f"tree {outer}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n".encode()
    )
    (world.truth / "refs" / "heads" / BRANCH).write_text(commit + "\n")
    with pytest.raises(RemoteUnreachable) as told:
        world.repository.fetch()
    assert "fsck" in told.value.cause


def _object(world: RealGit, kind: str, content: bytes) -> str:
    file = world.folder / "object"
    file.write_bytes(content)
    return world.git("hash-object", "-t", kind, "-w", "--literally", str(file), at=world.truth)


def test_an_export_is_whole_or_not_there(world: RealGit, tmp_path: Path) -> None:
    tip = world.write(BRANCH, {"housing/model.py": "one\n", "big": "x" * 3_000_000})
    world.repository.fetch()
    world.repository.export(tip, tmp_path / "trees" / tip)
    assert (tmp_path / "trees" / tip / "big").stat().st_size == 3_000_000
    assert [path.name for path in (tmp_path / "trees").iterdir()] == [tip]


def test_code_outlives_its_branch_and_every_collection(world: RealGit, tmp_path: Path) -> None:
    """I25."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.repository.fetch()
    world.writer.hold("housing", one, "1.0.0-alex.1")
    two = world.write(BRANCH, {"housing/model.py": "two\n"})
    world.reset(BRANCH, one)
    world.reset(BRANCH, two)
    world.writer.delete("housing", BRANCH, two, Stamp(1, 1))
    for place in (world.repository.path, world.truth):
        world.git("-c", "gc.reflogExpire=now", "gc", "--quiet", "--prune=now", at=place)
    for commit, text in ((one, b"one\n"), (two, b"two\n")):
        assert Mirror(world.repository.path, world.work).read(commit, "housing/model.py") == text
