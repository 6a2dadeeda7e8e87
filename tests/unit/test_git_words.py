"""This file tests what the git adapter decides without running git: names, addresses, settings, what git said.

Faults F8, F11, F34, F35; invariant I20.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from branchline.adapters.git import Answer, commit_id, failure, push_failure, ref_name, tree_path, version_of, words
from branchline.adapters.git_conclusion import person_of
from branchline.adapters.git_export import is_plain, stays_inside
from branchline.adapters.git_truth import Truth, taken, truth_of
from branchline.errors import BadName, BranchlineError, DiskFull, GitError, PushRefused, RefMoved, RemoteUnreachable

F8 = (
    "",
    "-",
    "--delete",
    "-rf",
    "$(id)",
    "`id`",
    "a;b",
    "a|b",
    "a&b",
    "${IFS}",
    "a b",
    "a\nb",
    "a\x00b",
    "a..b",
    "@{-1}",
    "a@{1}",
    "refs:heads",
    "a^b",
    "a~1",
    "a?b",
    "a*b",
    "a[b",
    "a\\b",
    "a.lock",
    "x/a.lock",
    "a.",
    "/a",
    "a/",
    "a//b",
    ".a",
    "x/.a",
    "\u202eevil",
    "exp\u200bx",
    "Ärger",
    "x" * 201,
)


@pytest.mark.parametrize("name", F8)
def test_a_name_that_means_something_else_is_refused(name: str) -> None:
    """F8, T4."""
    with pytest.raises(BadName):
        ref_name(name)
    with pytest.raises(BadName):
        commit_id(name)


@pytest.mark.parametrize("name", ["main", "release/1.0", "experiment--housing--alex", "feature_x", "user@work"])
def test_a_plain_name_is_itself(name: str) -> None:
    assert ref_name(name) == name


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a\nb", "a\x00b"])
def test_a_path_that_leads_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(BadName):
        tree_path(path)


def test_a_path_is_written_one_way() -> None:
    assert [tree_path(path) for path in ("a/b", "./a//b/", ".", "")] == ["a/b", "a/b", "", ""]


@pytest.mark.parametrize(
    ("path", "target", "safe"),
    [
        ("a/link", "b", True),
        ("a/link", "../b/c", True),
        ("a/b/link", "../../x", True),
        ("a/link", "./b/", True),
        ("link", "..", False),
        ("link", "../x", False),
        ("a/link", "../../x", False),
        ("link", "/etc/passwd", False),
        ("link", "a/../../x", False),
        ("a/link", "b/../c", False),
        ("link", ".git/config", False),
        ("link", "", False),
    ],
)
def test_a_link_stays_inside_its_tree(path: str, target: str, safe: bool) -> None:
    """F11: `..` behind another link leads anywhere, so it counts at the front only."""
    assert stays_inside(path, target) is safe


@pytest.mark.parametrize(
    "path", [".git/config", "a/.GIT/hooks/x", "a/git~1/x", ".g\u200cit/x", ".git /x", ".git::$INDEX/x", "a/../b", "/a"]
)
def test_a_path_like_dot_git_is_seen(path: str) -> None:
    """F11."""
    assert not is_plain(path)


def test_dotted_files_are_plain() -> None:
    assert all(is_plain(path) for path in (".gitignore", "a/.gitattributes", ".github/x", "git", "a.git/x"))


PUSHES = [
    ("!\tx:refs/heads/main\t[rejected] (stale info)", "error: failed to push some refs", RefMoved),
    ("!\tx:refs/heads/main\t[rejected] (non-fast-forward)", "", RefMoved),
    ("!\tx:refs/heads/main\t[rejected] (fetch first)", "", RefMoved),
    ("!\tx:refs/heads/main\t[remote rejected] (failed to update ref)", "", RefMoved),
    (
        "!\tx:refs/heads/main\t[remote rejected] (cannot lock ref 'refs/heads/main': is at 1 but expected 2)",
        "",
        RefMoved,
    ),
    ("!\tx:refs/heads/main\t[remote rejected] (pre-receive hook declined)", "remote: no", PushRefused),
    ("!\tx:refs/heads/main\t[remote rejected] (protected branch hook declined)", "", PushRefused),
    ("!\tx:refs/heads/main\t[remote rejected] (unpacker error)", "", PushRefused),
    ("", "remote: Permission to a/b.git denied to sam.\nfatal: unable to access: error: 403", PushRefused),
    ("", "remote: You are not allowed to push code to this project.", PushRefused),
    ("", "ERROR: Write access to repository not granted.", PushRefused),
    ("", "error: remote unpack failed: unable to create temporary object directory", PushRefused),
    ("", "fatal: Could not read from remote repository.", RemoteUnreachable),
    ("", "fatal: '/x' does not appear to be a git repository", RemoteUnreachable),
    ("", "ssh: Could not resolve hostname x: Name or service not known", RemoteUnreachable),
    ("", "git@x: Permission denied (publickey).", RemoteUnreachable),
    ("", "fatal: the remote end hung up unexpectedly", RemoteUnreachable),
    ("", "", RemoteUnreachable),
]


@pytest.mark.parametrize(("out", "err", "kind"), PUSHES)
def test_what_git_says_of_a_failed_push_is_understood(out: str, err: str, kind: type[BranchlineError]) -> None:
    """F34, F35."""
    answer = Answer(1, f"To x\n{out}\nDone".encode(), err)
    assert type(push_failure(answer, "main", "https://user:secret@host/x.git")) is kind


def test_a_password_in_an_address_is_not_repeated() -> None:
    """I20."""
    failure = push_failure(Answer(128, b"", "fatal: https://u:pw@host/x not found"), "main", "https://u:pw@host/x")
    assert "pw" not in failure.message + failure.cause
    assert words("hint: do this\nfatal: no\n") == "fatal: no"


def test_a_full_disk_is_told_as_one() -> None:
    """F55."""
    usual = GitError("no")
    assert isinstance(failure(Answer(128, b"", "fatal: write error: No space left on device"), usual), DiskFull)
    assert failure(Answer(128, b"", "fatal: bad object"), usual) is usual


def test_versions_are_read() -> None:
    assert version_of("git version 2.39.5 (Apple Git-154)") == (2, 39)
    assert version_of("git version 2.50.0.rc1") == (2, 50)
    assert version_of("nonsense") == (0, 0)


def test_the_truth_is_origin_else_the_only_remote_else_here() -> None:
    here, top = Path("/w/.git"), Path("/w")
    origin, other = ("remote.origin.url", "https://host/x.git"), ("remote.team.url", "../x.git")
    assert truth_of([], here, top) == Truth("", "/w/.git", "/w/.git")
    assert truth_of([other], here, top) == Truth("team", "/w/../x.git", "/w/../x.git")
    assert truth_of([other, origin], here, top).remote == "origin"
    assert truth_of([other, ("remote.b.url", "x")], here, top).remote == ""
    pushed = truth_of([origin, ("remote.origin.pushurl", "git@host:x.git")], here, top)
    assert (pushed.fetch, pushed.push) == ("https://host/x.git", "git@host:x.git")


def test_only_what_reaches_the_truth_is_taken_over() -> None:
    """F13."""
    settings = [
        ("core.hookspath", "/evil"),
        ("core.fsmonitor", "evil"),
        ("filter.lfs.smudge", "evil"),
        ("gpg.program", "evil"),
        ("alias.push", "!evil"),
        ("core.sshcommand", 'ssh -i "k"'),
        ("credential.https://h.helper", ""),
        ("url.git@h:.insteadof", "https://h/"),
        ("safe.directory", "*"),
        ("remote.origin.proxy", "p"),
        ("user.name", "x"),
        ("include.path", "/evil"),
        ("remote.origin.uploadpack", "evil"),
        ("merge.x.driver", "evil"),
    ]
    assert taken(settings) == (
        '[core]\n\tsshcommand = "ssh -i \\"k\\""\n[credential "https://h"]\n\thelper = ""\n'
        '[url "git@h:"]\n\tinsteadof = "https://h/"\n[safe]\n\tdirectory = "*"\n[remote "origin"]\n\tproxy = "p"\n'
    )


@pytest.mark.parametrize(
    ("actor", "who"),
    [
        ("Sam Lee <sam@example.invalid>", ("Sam Lee", "sam@example.invalid")),
        ("sam", ("branchline", "branchline@localhost")),
        ("", ("branchline", "branchline@localhost")),
        ("a\nb <x@y>", ("branchline", "branchline@localhost")),
        ("<x@y>", ("branchline", "branchline@localhost")),
        ("A <b> <x@y>", ("branchline", "branchline@localhost")),
    ],
)
def test_an_actor_is_an_author_only_with_name_and_address(actor: str, who: tuple[str, str]) -> None:
    assert person_of(actor) == who
