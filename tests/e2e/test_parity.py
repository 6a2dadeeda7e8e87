"""This file brings git and production apart in twelve ways, on real parts, and types what `parity` prints.

Each is seeded while no daemon lives, as it would be found after a bad night (asking starts none, so nothing is healed
before it is named), unless a daemon leaves it alone anyhow. Every repair is typed at a shell at the top of the work
tree, word for word. Requirement 1.51; faults F33, F54, F64, F73.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.processes_probe import peer
from branchline.ports import Endpoint
from tests.e2e.conftest import stopped_at_the_end
from tests.typed import PATIENCE, Shell, app, shares_of
from tests.waiting import wait_until

SAM = "experiment--shop--sam"
UP = "branchline up"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shop that serves 1.0.0 and has a canary of 1.1.0 that nobody asks; the commands are found on the path."""
    folder = tmp_path_factory.mktemp("repo")
    (folder / "bin").mkdir()
    command = folder / "bin" / "branchline"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m branchline.cli.main "$@"\n')
    command.chmod(0o755)
    with stopped_at_the_end(folder, {"UV_OFFLINE": "1", "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}) as made:
        made.type("up")
        made.first("shop", app("shop"))
        made.on_main()
        yield made


def drifts(shell: Shell) -> list[tuple[str, str]]:
    """What `parity` names: sort and repair; its exit status says whether there is any."""
    told = shell.type("parity", "--json", ok=(0, 1))
    assert told.document["schema"] == "branchline.parity/1"
    assert told.code == (1 if told.document["drifts"] else 0) == (not told.document["ok"])
    return [(each["drift"], each["repair"]) for each in told.document["drifts"]]


def type_as_printed(shell: Shell, repair: str) -> None:
    """Type a printed command at the top of the work tree."""
    environ = {**os.environ, **shell.environ}
    command = ("sh", "-c", repair)
    done = subprocess.run(command, cwd=shell.work, env=environ, capture_output=True, text=True, timeout=300)
    assert not done.returncode, (repair, done.stdout, done.stderr)


def until_whole(shell: Shell) -> None:
    """Wait until `parity` has nothing to say; a daemon that was just started needs a moment."""
    found: list[tuple[str, str]] = []

    def whole() -> bool:
        found[:] = drifts(shell)
        return not found

    assert wait_until(whole, PATIENCE, every=0.2), (found, shell.told())


def repaired(shell: Shell, sort: str, *, begins: str = UP) -> None:
    """The sort is named with its repair; that one command, as it was printed, and parity holds."""
    named = drifts(shell)
    assert sort in [each for each, _ in named], (named, shell.told())
    repair = next(each for name, each in named if name == sort)
    assert repair.startswith(begins), named
    printed = shell.type("parity", ok=1).out.splitlines()
    assert f"repair    {repair}" in printed
    type_as_printed(shell, repair)
    until_whole(shell)


@contextmanager
def without_daemon(shell: Shell) -> Iterator[None]:
    """Do something while no daemon lives; what serves goes on, and asking for parity starts none."""
    shell.type("up")
    until_whole(shell)
    shell.type("down", "--daemon-only")
    yield
    assert drifts(shell)
    assert shell.pid == 0


def sole(shell: Shell) -> tuple[str, tuple[int, ...]]:
    """Incarnation and processes of the one that serves, once those that were told to stop have ended."""
    shell.until("one serves", lambda: len(shell.running("shop")) == 1)
    ((nonce, _, _, pids),) = shell.running("shop")
    return nonce, pids


def first(shell: Shell) -> str:
    """The commit of 1.0.0."""
    return next(commit for ref, commit in shell.refs().items() if ref == "refs/tags/shop@v1.0.0")


def canary(shell: Shell) -> str:
    """Have a challenger in traffic that stays there; returns its branch."""
    shell.type("up")
    branch = shell.push("sam", app("shop", requests=10_000, note=os.urandom(4).hex()), "shop")
    shell.until_state(branch, "canary")
    return branch


# ------------------------------------------------------------------------------------------------ git


def test_a_live_revision_without_branch_and_a_branch_without_deployment(shop: Shell) -> None:
    """1 and 2: deleted by hand it leaves traffic; pushed by hand it is built and evaluated."""
    branch = canary(shop)
    with without_daemon(shop):
        shop.remove(branch)
    repaired(shop, "live revision without branch")
    assert (shares_of(shop, "shop"), branch in shop.heads()) == ({"1.0.0": 100}, False)
    with without_daemon(shop):
        other = shop.push("kim", app("shop", mode="fails", start="1s"), "shop")
    repaired(shop, "branch without deployment")
    shop.until_state(other, "evaluation failed")
    shop.remove(other)
    until_whole(shop)


def test_a_trunk_that_is_not_the_incumbent(shop: Shell) -> None:
    """3: a commit by hand is undone by a commit by hand, which is printed; nothing else is lost."""
    shop.type("up")
    shop.write("main", {"shop/NOTE": "by hand\n", "shop/more": "new\n", "README.md": "theirs\n"}, message="By hand")
    repaired(shop, "trunk is not the incumbent", begins="git switch main && ")
    assert shop.git("show", "main:shop/NOTE", at=shop.truth) == shop.git(
        "show", f"{first(shop)}:shop/NOTE", at=shop.truth
    )
    assert shop.git("show", "main:README.md", at=shop.truth) == "theirs"
    shop.write("main", {"shop": None}, message="Drop it")
    repaired(shop, "trunk is not the incumbent", begins="git switch main && ")


def test_a_keep_ref_that_is_gone_and_a_tag_that_was_moved(shop: Shell) -> None:
    """7 and 8: in the remote and in our mirror; set back by git, and by nobody but who types it."""
    shop.type("up")
    until_whole(shop)
    kept, tag, commit = "refs/branchline/revisions/shop/1.0.0", "refs/tags/shop@v1.0.0", first(shop)
    shop.git("update-ref", "-d", kept, at=shop.truth)
    repaired(shop, "keep-ref gone", begins=f"git push origin {commit}:")
    shop.git("update-ref", "-d", kept, at=shop.state / "mirror.git")
    repaired(shop, "keep-ref gone", begins=f"git push {shop.state / 'mirror.git'} {commit}:")
    shop.git("update-ref", tag, shop.git("rev-parse", "main", at=shop.truth), at=shop.truth)
    repaired(shop, "tag moved", begins="git push --force origin ")
    shop.git("update-ref", "-d", tag, at=shop.truth)
    repaired(shop, "tag moved", begins="git push origin ")
    assert (shop.refs()[tag], shop.refs()[kept]) == (commit, commit)


# ------------------------------------------------------------------------------------------------ processes


def test_an_orphan_process(shop: Shell) -> None:
    """4: its folder was removed; another one is started, and the forgotten one is named until it is ended."""
    shop.type("up")
    until_whole(shop)
    nonce, pids = sole(shop)
    shutil.rmtree(shop.state / "instances" / nonce)
    shop.until("another one serves", lambda: shop.running("shop"))
    shop.until_rest()
    named = drifts(shop)
    assert named == [("orphan process", f"kill {pids[0]}")]
    repaired(shop, "orphan process", begins="kill ")
    assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), PATIENCE)


def test_a_missing_process(shop: Shell) -> None:
    """5: killed while no daemon lived."""
    with without_daemon(shop):
        for pid in sole(shop)[1]:
            with contextlib.suppress(ProcessLookupError):  # with its supervisor a server ends by itself
                os.kill(pid, signal.SIGKILL)
    repaired(shop, "missing process")
    assert shop.call("/shop/").revision == "shop@1.0.0"


def test_a_stranger_on_a_socket(shop: Shell) -> None:
    """10: somebody else answers where ours did; it is left alone and gets no more requests."""
    with without_daemon(shop):
        nonce, _ = sole(shop)
        path = next(shop.settings.runtime.glob(f"{nonce}.*.sock"))
        path.unlink()
        server = Path(__file__).parents[1] / "servers.py"
        program = f"exec({server.read_text()!r}); exec(SERVER)"
        environ = {**os.environ, "BRANCHLINE_SOCKET": str(path), "BRANCHLINE_NONCE": nonce}
        stranger = subprocess.Popen((sys.executable, "-c", program, "well"), env=environ, stdout=subprocess.DEVNULL)
        assert wait_until(lambda: peer(path, 0)[0] == stranger.pid, PATIENCE)
    try:
        repaired(shop, "stranger on a socket")
        assert shop.call("/shop/").revision == "shop@1.0.0"
        assert stranger.poll() is None
        # The one that lost its socket drains first.
        shop.until("only another one runs", lambda: [each[0] != nonce for each in shop.running("shop")] == [True])
    finally:
        stranger.kill()
        stranger.wait()


def test_a_stranger_at_the_gateway_s_address(shop: Shell) -> None:
    """10: the gateway ended, and its port was taken."""
    with without_daemon(shop):
        told = json.loads((shop.state / "gateway" / "envoy.json").read_text())
        port = shop.port
        os.kill(told["pid"], signal.SIGKILL)
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def taken() -> bool:
            try:
                other.bind(("127.0.0.1", port))
            except OSError:
                return False
            return True

        assert wait_until(taken, PATIENCE)
        other.listen()
    with other:
        repaired(shop, "stranger on a socket", begins="branchline down --daemon-only; branchline up --port ")
        assert shop.port != port
        assert shop.call("/shop/").revision == "shop@1.0.0"


# ------------------------------------------------------------------------------------------------ the gateway


def test_a_route_to_the_unknown_and_an_edited_file(shop: Shell) -> None:
    """6 and 9: a rogue writer gave traffic to what nobody knows; somebody edited what Envoy reads."""
    with without_daemon(shop):
        nonce, _ = sole(shop)
        socket_path = str(next(shop.settings.runtime.glob(f"{nonce}.*.sock")))
        rogue = RouteWriter(shop.state / "gateway", shop.settings.runtime, ingest=shop.settings.ingest)
        stamp, ghost = rogue.told()["shop"], "f" * 40
        known = Endpoint(first(shop), "1.0.0", nonce, (socket_path,), nonce_aware=False)
        other = replace(known, revision=ghost, version="6.6.6", nonce="0" * 16)
        rogue.offer("shop", [known, other], stamp)
        rogue.shift("shop", 1, [(ghost, 100)], stamp)
        assert shop.call("/shop/").revision == "shop@6.6.6"
    repaired(shop, "route to the unknown")
    assert shop.call("/shop/").revision == "shop@1.0.0"
    with without_daemon(shop):
        path = shop.state / "gateway" / "rds.pb"
        edited = path.with_suffix(".edited")
        edited.write_bytes(path.read_bytes().replace(b"x-branchline-revision", b"x-branchline-division"))
        edited.replace(path)
        assert wait_until(lambda: shop.call("/shop/").revision == "", PATIENCE)
    repaired(shop, "edited gateway file")
    assert wait_until(lambda: shop.call("/shop/").revision == "shop@1.0.0", PATIENCE)


# ------------------------------------------------------------------------------------------------ files


def test_files_that_differ(shop: Shell) -> None:
    """12: what is served from, and what was checked out; a server that writes beside its code is nobody's drift."""
    shop.type("up")
    until_whole(shop)
    tree = shop.state / "trees" / "shop" / first(shop) / "shop"
    before = (tree / "server.py").read_text()
    (tree / "server.py").write_text("# somebody was here\n")
    (tree / "cache.db").touch()
    repaired(shop, "files differ", begins="branchline checkout shop@1.0.0 --again")
    assert ((tree / "server.py").read_text(), (tree / "cache.db").exists()) == (before, True)
    folder = shop.folder / "my look"
    shop.type("checkout", "shop@1.0.0", "--into", str(folder))
    until_whole(shop)
    (folder / "shop" / "server.py").write_text("# mine\n")
    repaired(shop, "files differ", begins="branchline checkout shop@1.0.0 --again --into '")
    assert (folder / "shop" / "server.py").read_text() == before
    assert "changed in" in shop.git("stash", "list", at=folder)
    shop.git("worktree", "remove", str(folder))


# ------------------------------------------------------------------------------------------------ the ledger


def test_a_ledger_restored_from_an_old_copy(shop: Shell) -> None:
    """11, F54: nothing is done by it until a person says that it counts; what is then left is named in its turn."""
    shop.type("up")
    until_whole(shop)
    shop.type("down", "--daemon-only")
    ledger = shop.state / "ledger.sqlite3"
    copies = [(path, path.read_bytes()) for path in shop.state.glob("ledger.sqlite3*") if path.is_file()]
    shop.type("up")
    branch = shop.push("kim", app("shop", note="two"), "shop")
    judged = shop.tip(branch)
    version = shop.until_state(branch, "canary")["version"]
    shop.ask_until_answered("shop", version)
    shop.until_live("shop", judged)
    shop.type("down", "--daemon-only")
    for path in shop.state.glob("ledger.sqlite3*"):
        path.unlink()
    for path, content in copies:
        path.write_bytes(content)
    assert ledger.exists()
    named = drifts(shop)
    assert named[0] == ("older ledger", "branchline up --restored")
    assert shop.pid == 0
    shop.type("up")
    shop.until("git was looked at", lambda: shop.status().get("remote", {}).get("reachable"))
    assert shop.call("/shop/").revision == f"shop@{version}"
    problem = shop.refused("freeze", "shop", "--yes", ok=(69, 75, 3, 70))  # type: ignore[arg-type]
    assert problem["code"] == "BL709"
    assert "older ledger" in shop.type("status").out
    type_as_printed(shop, "branchline up --restored")
    shop.until("what the ledger knows serves", lambda: shares_of(shop, "shop") == {"1.0.0": 100})
    assert [entry["event"] for entry in shop.history("shop")].count("Restored") == 1
    shop.on_main()
    repaired(shop, "trunk is not the incumbent", begins="git switch main && ")
    assert shop.git("show", "main:shop/NOTE", at=shop.truth) == shop.git(
        "show", f"{first(shop)}:shop/NOTE", at=shop.truth
    )
    again = shop.push("kim", app("shop", note="three"), "shop")
    assert shop.until_state(again, "canary")["version"] not in ("1.0.0", version)  # I25: what git has seen is taken
    shop.remove(again)
    until_whole(shop)
