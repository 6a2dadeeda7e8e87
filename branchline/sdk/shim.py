"""This file stands between whoever starts a process and the process: it supervises one process tree to its end.

Run by path (`python -S -I shim.py NAME < order`) it takes one line of JSON, and either stays on the leash of its
standard input (a step: when whoever started it dies, the tree is ended) or detaches (a server: it outlives the daemon).
Imported by `run` it supervises a forked function. Rules:

- the tree's root leads a session of its own and dies with its supervisor; the supervisor adopts orphans (subreaper), so
  that a double fork with setsid does not escape the sweep at the end (F16);
- ending is TERM to the group, a grace, then KILL of everything that is left (F15);
- what the tree prints passes through here: cleaned, and capped by keeping the newest (F19);
- a tree that holds more memory than it may is killed: its resident pages are counted, for reserved ones are nobody's;
- the exit status is written to a temporary name and renamed, so it is there whole or not at all.

Linux only (prctl, /proc, pidfd); standard library only, and little of it: every command waits for this to start.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

if not __package__:  # run by path: the rest of the sdk is found from there
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from branchline.sdk import trees

CAP = 8 << 20
GRACE = 5.0
LOOKS = 0.05  # seconds between two looks at the memory of a tree that has a limit; at others ever 20 times later
TAIL_LINES, TAIL_BYTES, TAIL_WIDTH = 20, 16 << 10, 1000
# CSI and OSC sequences of terminals (ECMA-48), then every other control character but newline and tab.
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Ended(NamedTuple):
    """How a tree ended: `exit` as a shell counts, `left` processes outlived its root and were swept."""

    exit: int
    seconds: float
    timed_out: bool = False
    asked: bool = False
    left: int = 0
    tail: str = ""
    changed: tuple[str, ...] = ()  # of the inputs: the first path of each
    cpu: float = 0.0  # seconds of all its processes, those that were swept included
    peak: int = 0  # bytes resident at once, as far as was looked; never less than the largest of its processes had
    starved: bool = False  # it held more than `memory`


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


class Root(NamedTuple):
    """The root of a tree: its process, and the end of the pipe that the tree prints into."""

    pid: int
    reading: int


def begin(body: Callable[[], None]) -> Root:
    """Fork a root that runs `body`; once this returns it has a group of its own that can be signalled."""
    trees.adopt_orphans()
    reading, writing = os.pipe()
    settled, settling = os.pipe()
    me, pid = os.getpid(), os.fork()
    if pid == 0:
        os.close(settled)
        os.close(reading)
        _become_child(me, writing, settling, body)
    os.close(writing)
    os.close(settling)
    os.read(settled, 1)  # the end of this pipe: before it there is no group to signal, and TERM would be lost
    os.close(settled)
    os.set_blocking(reading, False)
    return Root(pid, reading)


def supervise(
    body: Callable[[], None] | Root,
    log: str,
    *,
    seconds: float | None = None,
    grace: float = GRACE,
    cap: int = CAP,
    stops: Sequence[int] = (),
    inputs: Sequence[str] = (),
    memory: int = 0,
    started: Callable[[int], None] = lambda pid: None,
) -> Ended:
    """Fork, run `body` in the child and see its whole tree to the end; the child's streams go to `log`.

    A root that was begun before, and waits, may be given instead: `started` is what tells it to go on.

    Readable (or closed) file descriptors in `stops` end it early, as do the time limit and that of `memory`: bytes of
    the whole tree, 0 for none. Files and folders in `inputs` are looked at before and after (F23): to forbid writing
    there is not in the power of who runs as the same user. Only one at a time in a process: every child of this
    process is taken for a part of the tree.
    """
    given = {path: marks(path) for path in inputs}
    writer = Log(log, cap)
    begun = time.monotonic()
    root = body if isinstance(body, Root) else begin(body)
    watch = _Watch(root, writer, tuple(stops), memory, bool(seconds or memory))
    started(root.pid)
    try:
        early = watch.until_end(seconds)
        if early:
            _kill_group(root.pid, signal.SIGKILL if early == "memory" else signal.SIGTERM)
            if watch.until_end(grace, heed=False):
                _kill_group(root.pid, signal.SIGKILL)
                watch.until_end(None, heed=False)
        left = trees.sweep(watch.used, 0 if early == "memory" else trees.PATIENCE)
        watch.drain()
        took = time.monotonic() - begun
        code = watch.code if watch.code >= 0 else 128 - watch.code
        changed = tuple(filter(None, (difference(before, marks(path)) for path, before in given.items())))
        return Ended(
            code, round(took, 4), early == "time", early == "asked", left, writer.tail(), changed,
            round(watch.used.cpu, 4), max(watch.peak, watch.used.peak), early == "memory",
        )  # fmt: skip
    finally:
        os.close(root.reading)
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

    def __init__(self, root: Root, writer: Log, stops: tuple[int, ...], memory: int, looks: bool) -> None:
        self.pid, self.reading, self.writer, self.stops, self.memory = root.pid, root.reading, writer, stops, memory
        self.used = trees.Used()
        self.end = os.pidfd_open(root.pid)
        self.code = self.peak = 0
        self.open = True
        self.every = LOOKS if memory else LOOKS * 20
        self.look = time.monotonic() + self.every if looks else float("inf")

    def until_end(self, seconds: float | None, heed: bool = True) -> str:
        """'' when the root has ended, else why it should: 'time', 'memory', or 'asked' by one of `stops`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            wanted = [self.end, *([self.reading] if self.open else []), *(self.stops if heed else ())]
            nearest = min(self.look, self.look if deadline is None else deadline) - time.monotonic()
            ready = _readable(wanted, max(0.0, min(5.0, nearest)))
            if self.reading in ready:
                self.open = self.copy()
            if self.end in ready:
                self.code = os.waitstatus_to_exitcode(self.used.collect(self.pid, 0)[1])
                return ""
            if any(stop in ready for stop in self.stops):
                return "asked"
            if deadline is not None and time.monotonic() >= deadline:
                return "time"
            self.reap_orphans()
            if time.monotonic() >= self.look and self.measure() and heed:
                return "memory"

    def measure(self) -> bool:
        """Look at the tree's memory; True when it is too much. What a look costs puts off the next one."""
        begun = time.monotonic()
        held = trees.resident(trees.descendants(os.getpid()), self.memory or self.peak)
        self.peak = max(self.peak, held)
        now = time.monotonic()
        self.look = now + max(self.every, 20 * (now - begun))
        return 0 < self.memory < held

    def reap_orphans(self) -> None:
        """Collect adopted children that have ended; the root is left for whoever waits for it."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid == self.pid:
                return
            self.used.collect(found.si_pid, 0)

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
        trees.die_with(parent)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGHUP):
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


def write_whole(path: str, document: object) -> None:
    """Write JSON to a temporary name, sync, rename: there whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


# ------------------------------------------------------------------------------------------------ run by path


def command(order: Mapping[str, Any]) -> Callable[[], None]:
    """The body that becomes the ordered command: its limits, its folder, its whole environment, its standard input."""

    def become() -> None:
        trees.confine(order.get("cgroups", ()), order.get("files", 0))
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
    names = ("seconds", "grace", "cap", "inputs", "memory")
    return {name: order[name] for name in names if order.get(name) is not None}


def on_leash(order: Mapping[str, Any]) -> None:
    """Run the command and print how it ended; a closed standard input ends it."""
    ended = supervise(command(order), order["log"], stops=(0, termination()), **options(order))
    print(json.dumps(ended._asdict()), flush=True)


def detached(order: Mapping[str, Any], body: Callable[[], None] | None = None) -> None:
    """Run the command, or `body`, on its own; say `ok` on standard output once the supervisor can be found again.

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
        state = {"pid": me, "ticks": trees.ticks(me), "boot": boot, "child": child, "at": time.time()}
        write_whole(os.path.join(folder, "state.json"), state)
        with contextlib.suppress(BrokenPipeError):  # who asked has died meanwhile: its successor finds us by the folder
            os.write(1, b"ok\n")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)

    ended = supervise(body or command(order), order["log"], stops=(stop,), started=started, **options(order))
    write_whole(os.path.join(folder, "exit.json"), ended._asdict())
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
        print(trees.sweep_marked(arguments[1]))
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
