"""This file stands between whoever starts a process and the process: it supervises one process tree to its end.

Run by path (`python -S -I shim.py NAME < order`) it takes one line of JSON, and either stays on the leash of its
standard input (a step: when whoever started it dies, the tree is ended) or detaches (a server: it outlives the daemon).
Imported by `run` it supervises a forked function. Rules:

- the tree's root leads a session of its own and dies with its supervisor; the supervisor adopts orphans (subreaper), so
  that a double fork with setsid does not escape the sweep at the end (F16);
- ending is TERM to the group, a grace, then KILL of everything that is left (F15);
- what the tree prints passes through here: cleaned, and capped by keeping the newest (F19);
- the exit status is written to a temporary name and renamed, so it is there whole or not at all.

Linux only (prctl, /proc, pidfd); standard library only.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
CAP = 8 << 20
GRACE = 5.0
PATIENCE = 0.25  # what a tree gets to fold up by itself once its root has ended
TAIL_LINES, TAIL_BYTES, TAIL_WIDTH = 20, 16 << 10, 1000
# CSI and OSC sequences of terminals (ECMA-48), then every other control character but newline and tab.
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ended:
    """How a tree ended: `exit` as a shell counts, `left` processes outlived its root and were swept."""

    exit: int
    seconds: float
    timed_out: bool = False
    asked: bool = False
    left: int = 0
    tail: str = ""
    changed: tuple[str, ...] = ()  # of the inputs: the first path of each


class Log:
    """A text file that keeps the newest `cap` to 2 x `cap` bytes of what was printed (the older half in `NAME.1`)."""

    def __init__(self, path: str, cap: int = CAP) -> None:
        self.path, self.cap = path, cap
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.size = os.fstat(self.file).st_size
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: bytes) -> None:
        """Append cleaned text; a full disk loses text and never the process."""
        text = self.decoder.decode(data).replace("\r\n", "\n").replace("\r", "\n")
        clean = _TERMINAL.sub("", text).encode()
        try:
            if self.size + len(clean) > self.cap:
                os.replace(self.path, self.path + ".1")
                os.close(self.file)
                self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
                self.size = 0
            os.write(self.file, clean)
            self.size += len(clean)
        except OSError:
            pass

    def tail(self) -> str:
        """The last lines."""
        with open(self.path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(line[:TAIL_WIDTH] for line in lines)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.file)


def supervise(
    body: Callable[[], None],
    log: str,
    *,
    seconds: float | None = None,
    grace: float = GRACE,
    cap: int = CAP,
    stops: Sequence[int] = (),
    inputs: Sequence[str] = (),
    started: Callable[[int], None] = lambda pid: None,
) -> Ended:
    """Fork, run `body` in the child and see its whole tree to the end; the child's streams go to `log`.

    Readable (or closed) file descriptors in `stops` end it early, as does the time limit. Files and folders in `inputs`
    are looked at before and after (F23): to forbid writing there is not in the power of who runs as the same user. Only
    one at a time in a process: every child of this process is taken for a part of the tree.
    """
    _libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    given = {path: marks(path) for path in inputs}
    writer = Log(log, cap)
    reading, writing = os.pipe()
    settled, settling = os.pipe()
    begun, me = time.monotonic(), os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(settled)
        _become_child(me, writing, settling, body)
    os.close(writing)
    os.close(settling)
    os.read(settled, 1)  # the end of this pipe: before it there is no group to signal, and TERM would be lost
    os.close(settled)
    os.set_blocking(reading, False)
    watch = _Watch(pid, reading, writer, tuple(stops))
    started(pid)
    try:
        early = watch.until_end(seconds)
        if early:
            _kill_group(pid, signal.SIGTERM)
            if watch.until_end(grace, heed=False):
                _kill_group(pid, signal.SIGKILL)
                watch.until_end(None, heed=False)
        left = sweep()
        watch.drain()
        took = time.monotonic() - begun
        code = watch.code if watch.code >= 0 else 128 - watch.code
        changed = tuple(filter(None, (difference(before, marks(path)) for path, before in given.items())))
        return Ended(code, round(took, 4), early == "time", early == "asked", left, writer.tail(), changed)
    finally:
        os.close(reading)
        os.close(watch.end)
        writer.close()


def marks(path: str) -> dict[str, tuple[int, ...]]:
    """What a file, or everything in a folder, is told by to have stayed as it was, without reading it."""
    names = [path, *(os.path.join(at, name) for at, folders, files in os.walk(path) for name in (*folders, *files))]
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            info = os.lstat(name)
            found[name] = (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns)
    return found


def difference(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """The deepest path that is not as it was; '' when all are: a folder changes with what is added to it."""
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return max(sorted(changed), key=lambda name: name.count("/"), default="")


class _Watch:
    """Waits for the root to end while copying what the tree prints."""

    def __init__(self, pid: int, reading: int, writer: Log, stops: tuple[int, ...]) -> None:
        self.pid, self.reading, self.writer, self.stops = pid, reading, writer, stops
        self.end = os.pidfd_open(pid)
        self.code = 0
        self.open = True

    def until_end(self, seconds: float | None, heed: bool = True) -> str:
        """'' when the root has ended, 'time' after `seconds`, 'asked' when one of `stops` became readable."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            wanted = [self.end, *([self.reading] if self.open else []), *(self.stops if heed else ())]
            wait = 5.0 if deadline is None else max(0.0, min(5.0, deadline - time.monotonic()))
            ready = _readable(wanted, wait)
            if self.reading in ready:
                self.open = self.copy()
            if self.end in ready:
                self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                return ""
            if any(stop in ready for stop in self.stops):
                return "asked"
            if deadline is not None and time.monotonic() >= deadline:
                return "time"
            _reap_orphans(self.pid)

    def copy(self) -> bool:
        """Copy one piece; False at the end of the stream."""
        try:
            data = os.read(self.reading, 1 << 16)
        except BlockingIOError:
            return True
        self.writer.write(data)
        return bool(data)

    def drain(self) -> None:
        """Copy what is still in the pipe once everybody who could write to it is gone."""
        while self.open and self.reading in _readable([self.reading], 0):
            self.open = self.copy()


def _readable(wanted: list[int], seconds: float) -> set[int]:
    """Which of the descriptors can be read within so many seconds; poll, since select stops at number 1023."""
    poll = select.poll()
    for number in wanted:
        poll.register(number, select.POLLIN)
    return {number for number, _ in poll.poll(seconds * 1000)}


def _become_child(parent: int, output: int, settling: int, body: Callable[[], None]) -> None:
    """Settle as the root of a tree, run the body, and never return."""
    status = 70
    try:
        os.setsid()
        _libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before it could be watched
            os._exit(137)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(settling)
        body()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:
        os.write(2, f"branchline: {type(error).__name__}: {error}\n".encode())
        raise
    finally:
        os._exit(status)


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _reap_orphans(root: int) -> None:
    """Collect adopted children that have ended; the root is left for whoever waits for it."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == root:
            return
        os.waitpid(found.si_pid, 0)


def sweep(patience: float = PATIENCE) -> int:
    """Kill every descendant of this process; return how many had to be killed after a moment to end by themselves."""
    killed: set[int] = set()
    deadline = time.monotonic() + patience
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return len(killed)
        now = time.monotonic()
        if now >= deadline + 10:  # in an uninterruptible wait: nobody can end it
            return len(killed)
        if now >= deadline:
            for pid in descendants(os.getpid()):
                killed.add(pid)
                _kill(pid)
        time.sleep(0.002)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def parents() -> dict[int, int]:
    """Process -> parent, for every process that has not ended."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            found[int(name)] = int(parent)
            if state in b"ZX":
                del found[int(name)]
    return found


def descendants(pid: int) -> list[int]:
    """Every living process below one, parents before their children."""
    family, found = parents(), [pid]
    for one in found:
        found += [child for child, parent in family.items() if parent == one]
    return found[1:]


def marked(variable: str) -> list[int]:
    """Every process whose environment holds `NAME=VALUE`: what a killed supervisor left behind."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if variable.encode() in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
    return found


def ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid, its name for ever (proc(5), field 22)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def write_whole(path: str, document: object) -> None:
    """Write JSON to a temporary name, sync, rename: there whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


# ------------------------------------------------------------------------------------------------ run by path


def command(order: Mapping[str, Any]) -> Callable[[], None]:
    """The body that becomes the ordered command: its folder, its whole environment, its standard input."""

    def become() -> None:
        given = os.memfd_create("stdin")
        os.write(given, str(order.get("stdin", "")).encode())
        os.lseek(given, 0, os.SEEK_SET)
        os.dup2(given, 0)
        argv, env = [str(word) for word in order["argv"]], {str(k): str(v) for k, v in order["env"].items()}
        try:
            os.chdir(order["cwd"])
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(2, f"branchline: cannot run {argv[0]}: {error.strerror} {error.filename or ''}\n".encode())
            sys.exit(127 if isinstance(error, FileNotFoundError) else 126)

    return become


def options(order: Mapping[str, Any]) -> dict[str, Any]:
    """The limits of an order, as `supervise` takes them."""
    return {name: order[name] for name in ("seconds", "grace", "cap", "inputs") if order.get(name) is not None}


def on_leash(order: Mapping[str, Any]) -> None:
    """Run the command and print how it ended; a closed standard input ends it."""
    ended = supervise(command(order), order["log"], stops=(0, termination()), **options(order))
    print(json.dumps(asdict(ended)), flush=True)


def detached(order: Mapping[str, Any]) -> None:
    """Run the command on its own; say `ok` on standard output once the supervisor can be found again.

    The folder then holds `lock` (held while the supervisor lives), `state.json`, and at the end `exit.json`.
    """
    if os.fork():
        os._exit(0)
    os.setsid()
    folder = order["folder"]
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    stop = termination()

    def started(child: int) -> None:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        me = os.getpid()
        state = {"pid": me, "ticks": ticks(me), "boot": boot, "child": child, "at": time.time()}
        write_whole(os.path.join(folder, "state.json"), state)
        with contextlib.suppress(BrokenPipeError):  # who asked has died meanwhile: its successor finds us by the folder
            os.write(1, b"ok\n")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)

    ended = supervise(command(order), order["log"], stops=(stop,), started=started, **options(order))
    write_whole(os.path.join(folder, "exit.json"), asdict(ended))
    if order.get("socket"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(order["socket"])


def termination() -> int:
    """A descriptor that becomes readable when this process is asked to end (TERM)."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us: it decides
    return reading


def main(arguments: Sequence[str]) -> None:
    """`NAME` (for whoever lists processes): take an order. `--sweep NAME=VALUE`: kill and count what is so marked."""
    if arguments[:1] == ["--sweep"]:
        found = marked(arguments[1])
        for pid in found:
            _kill(pid)
        print(len(found))
        return
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            sys.exit(64)
        line += piece
    order = json.loads(line)
    (detached if order.get("folder") else on_leash)(order)


if __name__ == "__main__":
    main(sys.argv[1:])
