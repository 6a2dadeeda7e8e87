"""This file runs the git executable: by argument list, in a known environment, never longer than allowed.

Rules: no shell; what came from outside stands behind `--end-of-options` or on standard input, and only after its form
was checked. Every call is a process group of its own; it dies with its parent (`setpriv`), for a surviving child holds
real locks. Messages are asked for in English (LC_ALL=C), because failed pushes are told apart by them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from branchline.errors import (
    BadName,
    BranchlineError,
    DiskFull,
    GitError,
    GitMissing,
    PushRefused,
    RefMoved,
    RemoteUnreachable,
)

MINIMUM = (2, 38)
LOCAL = 60.0  # seconds that a local command may take
NETWORK = 300.0  # seconds that a fetch or a push may take

# What git and what it starts (ssh, credential helpers) may know of our environment.
_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|LANG|SSH_\w+|XDG_\w+|DBUS_SESSION_BUS_ADDRESS|DISPLAY|GNUPGHOME"
    r"|GIT_(AUTHOR_NAME|AUTHOR_EMAIL|SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|SSL_\w+|CONFIG_GLOBAL|CONFIG_SYSTEM)"
    r"|GIT_CONFIG_NOSYSTEM"
    r"|SSL_CERT_\w+|CURL_CA_BUNDLE|(all|http|https|no)_proxy|(ALL|HTTP|HTTPS|NO)_PROXY"
)
# Nothing that a repository brings with it is run (F13).
_OFF = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false")

# Lets a repository on this machine give a commit that no branch of it leads to.
ANY_COMMIT = "--upload-pack=git -c core.hooksPath=/dev/null -c uploadpack.allowAnySHA1InWant=true upload-pack"

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+@-]*)*")


@dataclass(frozen=True, slots=True)
class Answer:
    """What git answered."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """The output as text, without the last line end."""
        return self.out.decode("utf-8", "surrogateescape").rstrip("\n")


def commit_id(text: str) -> str:
    """Return a full object id, or raise BadName: nothing else is ever looked up (F8)."""
    if not _COMMIT.fullmatch(text):
        raise BadName(what="commit", name=text)
    return text


def ref_name(text: str) -> str:
    """Return a branch name that is safe everywhere, or raise BadName; narrower than `git check-ref-format` (F8)."""
    bad = not _REF.fullmatch(text) or ".." in text or "@{" in text or text.endswith(".") or len(text) > 200
    if bad or any(part.endswith((".lock", ".")) for part in text.split("/")):
        raise BadName(what="branch", name=text)
    return text


def tree_path(text: str) -> str:
    """Return a path inside a tree without `./` and closing `/`; '' is the root. Raises BadName when it leads out."""
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if text.startswith("/") or ".." in parts or re.search(r"[\x00-\x1f\x7f]", text):
        raise BadName(what="path", name=text)
    return "/".join(parts)


class Git:
    """One repository as git sees it.

    `options` are `-c` settings besides those that switch foreign code off, `env` what is set in the environment besides
    what is passed through. A `sheltered` command dies with us; one that writes somebody else's repository finishes.
    """

    def __init__(
        self, folder: Path, *, options: Sequence[str] = (), env: Mapping[str, str] | None = None, sheltered: bool = True
    ) -> None:
        self.folder = folder
        self._options = tuple(word for setting in (*_OFF, *options) for word in ("-c", setting))
        self._env = {
            **{name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)},
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
            **(env or {}),
        }
        self._sheltered = sheltered

    def answer(
        self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, seconds: float = LOCAL
    ) -> Answer:
        """Run one command to its end, whatever it says; raises GitMissing, and GitError when it takes too long."""
        process = self._start(arguments, subprocess.PIPE, env)
        try:
            out, err = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise GitError(f"git {arguments[0]} took longer than {seconds:.0f} s") from None
        finally:
            end(process)
        return Answer(process.returncode, out, err.decode("utf-8", "replace"))

    def out(
        self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, seconds: float = LOCAL
    ) -> bytes:
        """The output of a command that must succeed; raises GitError with git's own words."""
        answer = self.answer(*arguments, stdin=stdin, env=env, seconds=seconds)
        if answer.code:
            raise failure(answer, GitError(f"git {arguments[0]}: {words(answer.err)}"))
        return answer.out

    def line(
        self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, seconds: float = LOCAL
    ) -> str:
        """The output of a command that must succeed, as text without its line end."""
        told = self.out(*arguments, stdin=stdin, env=env, seconds=seconds)
        return told.decode("utf-8", "surrogateescape").rstrip("\n")

    @contextmanager
    def stream(self, *arguments: str, stdin: IO[bytes]) -> Iterator[IO[bytes]]:
        """The output of a command while it runs, its input read from a file; the command is ended with the context."""
        process = self._start(arguments, stdin, None)
        try:
            assert process.stdout is not None
            yield process.stdout
        finally:
            end(process)

    def conversation(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A command that answers line by line and ends with its input; `end` is its caller's to call."""
        return self._start(arguments, subprocess.PIPE, None, sheltered=False)

    def _start(
        self,
        arguments: Sequence[str],
        stdin: IO[bytes] | int,
        env: Mapping[str, str] | None,
        *,
        sheltered: bool = True,
    ) -> subprocess.Popen[bytes]:
        guard = _guard() if self._sheltered and sheltered else ()
        try:
            return subprocess.Popen(
                [*guard, executable(), *self._options, *arguments],
                cwd=self.folder, env={**self._env, **(env or {})}, start_new_session=True,
                stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError as missing:
            raise GitError(f"{missing.filename} is not there") from missing


def end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of a command behind: its group is ended, gently first, for then git takes its locks along."""
    for ending, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, None)):
        if process.poll() is None:
            os.killpg(process.pid, ending)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe and not pipe.closed:
            pipe.close()


@cache
def executable() -> str:
    """The path of a git that is new enough; raises GitMissing."""
    path = shutil.which("git")
    minimum = ".".join(map(str, MINIMUM))
    if path is None:
        raise GitMissing("there is no git on PATH", minimum=minimum)
    said = subprocess.run([path, "version"], capture_output=True, text=True, check=False).stdout
    if version_of(said) < MINIMUM:
        raise GitMissing(f"{path} says: {said.strip()}", minimum=minimum)
    return path


def version_of(text: str) -> tuple[int, int]:
    """Read major and minor from what `git version` prints; (0, 0) when they are not there."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@cache
def _guard() -> tuple[str, ...]:
    """The words that make a command die with the thread that started it, where the machine has them (util-linux)."""
    path = shutil.which("setpriv")
    words = (path, "--pdeathsig", "KILL", "--") if path else ()
    tried = bool(words) and subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    return words if tried else ()


# ------------------------------------------------------------------------------------------------ what git says

_REJECTED = re.compile(r"^!\t[^\t]*\t\[(?:remote )?(?:rejected|failure)\] ?\(?(?P<why>[^)\n]*)", re.MULTILINE)
_MOVED = ("stale info", "non-fast-forward", "fetch first", "needs force", "already exists", "cannot lock ref",
          "failed to update ref", "failed to lock", "incorrect old value")  # fmt: skip
_REFUSED = ("hook declined", "protected branch", "prohibited", "not allowed", "permission to", "write access", "403",
            "insufficient permission", "read-only", "unpacker error", "unable to create temporary object directory",
            "denied to", "deny", "hidden ref")  # fmt: skip


def words(err: str, lines: int = 6) -> str:
    """The last lines that git said on standard error, without addresses' passwords."""
    told = [line for line in err.splitlines() if line.strip() and not line.startswith("hint:")]
    return hidden("\n".join(told[-lines:]).strip())


def hidden(text: str) -> str:
    """The text with what may be a password in an address left out (I20)."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1", text)


def failure(answer: Answer, usual: BranchlineError) -> BranchlineError:
    """What a failed command is to be told as: DiskFull when that was it, else as usual."""
    return DiskFull(words(answer.err), what="git's copy") if "No space left on device" in answer.err else usual


def push_failure(answer: Answer, ref: str, remote: str) -> BranchlineError:
    """Why a push failed, by its `--porcelain` lines and git's words: RefMoved, PushRefused or RemoteUnreachable."""
    cause = words(answer.err)
    rejected = _REJECTED.search(answer.text)
    if rejected:
        why = rejected["why"].lower()
        cause = "\n".join(filter(None, [rejected["why"], cause]))
        if any(word in why for word in _MOVED):
            return RefMoved(cause, ref=ref)
        return PushRefused(cause, ref=ref)
    told = answer.err.lower()
    if any(word in told for word in _REFUSED):
        return PushRefused(cause, ref=ref)
    return RemoteUnreachable(cause or "the connection ended", remote=hidden(remote))
