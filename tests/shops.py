"""This file makes a service and an environment that warm workers are tried on: steps that leak, hang, flood and escape.

The environment has packages of its own: one that changes the process as it is imported, one that raises half-way, one
that starts a thread, one that hangs, and one that draws numbers.
"""

from __future__ import annotations

import json
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from branchline.adapters.workers import WarmWorkers
from branchline.ports import Bench
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
ENV = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
PACKAGES = {
    "noisy.py": """
import os, sys
print("noise", flush=True)
os.environ["NOISE"] = "loud"
os.environ.pop("LANG", None)
os.chdir("/")
os.umask(0)
sys.path.insert(0, "/noise")
sys.stdout = None
kept = open(os.devnull)
""",
    "broken/__init__.py": "from broken import half\nraise RuntimeError('broken from the start')",
    "broken/half.py": "",
    "threaded.py": """
import threading
beats = threading.Event()
thread = threading.Thread(target=beats.wait, daemon=True)
thread.start()
""",
    "numpy/__init__.py": "from numpy import random",
    "numpy/random.py": """
import os
state = "drawn once"
def seed():
    global state
    state = os.urandom(8).hex()
""",
    "endless.py": "import time\ntime.sleep(600)",
    "shadow.py": "whose = 'the package'",
    "iniconfig.py": "",
}
LEAKS = """
import builtins, gc, os, random, signal, sys, threading, time
import iniconfig
mine = []

def look():
    mask = os.umask(0)
    os.umask(mask)
    return {
        "mine": mine, "environ": {k: v for k, v in os.environ.items() if k not in ("TMPDIR", "BRANCHLINE_RUN")},
        "cwd": os.getcwd(), "path": sys.path, "modules": sorted(sys.modules), "umask": mask, "argv": sys.argv[1:],
        "handlers": {str(n): str(signal.getsignal(n)) for n in range(1, 32)}, "gc": gc.isenabled(),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "tasks": len(os.listdir("/proc/self/task")),
        "threads": threading.active_count(), "leak": hasattr(builtins, "leak"), "package": hasattr(iniconfig, "leak"),
        "files": [os.path.basename(os.readlink(f"/proc/self/fd/{n}")) for n in open_files()],
        "limit": sys.getrecursionlimit(), "may": sorted(os.sched_getaffinity(0)), "nice": os.nice(0),
    }

def open_files():
    numbers = []
    for n in sorted(map(int, os.listdir("/proc/self/fd"))):
        if n > 2 and os.path.exists(f"/proc/self/fd/{n}") or n > 2 and "memfd" in link(n):
            numbers.append(n)
    return numbers

def link(n):
    try:
        return os.readlink(f"/proc/self/fd/{n}")
    except OSError:
        return ""

def leak():
    global kept
    mine.append(1)
    builtins.leak = iniconfig.leak = True
    os.environ["LEAK"] = "1"
    del os.environ["PATH"]
    os.chdir("/")
    sys.path.insert(0, "/leak")
    sys.modules["leaked"] = sys
    random.seed(1)
    kept = open(os.devnull)
    os.umask(0o077)
    os.nice(5)
    gc.disable()
    sys.setrecursionlimit(5000)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    threading.Thread(target=time.sleep, args=(600,)).start()

def draw(): return random.random()
"""
STEPS = """
import multiprocessing, os, subprocess, sys, time
from pathlib import Path

def fine(): return "fine"
def family():
    # a child, and one that escaped its session and knows nothing of who began it
    child = subprocess.Popen(["sleep", "600"])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(escaped=os.getpid())
            time.sleep(600)
        os._exit(0)
    os.wait()
    note(step=os.getpid(), supervisor=os.getppid(), child=child.pid)
    time.sleep(600)
def note(**pids):
    for name, pid in pids.items():
        Path(name + ".new").write_text(str(pid))
        os.replace(name + ".new", name)
def greedy():
    held = []
    while True:
        held.append(b"x" * 8_000_000)
        time.sleep(0.02)
def greedy_children():
    for _ in range(4):
        if os.fork() == 0:
            held = b"x" * 50_000_000
            time.sleep(600)
    time.sleep(600)
def refused():
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
    return len(b"x" * (1 << 30))
def flood():
    for n in range(40_000):
        print("x" * 200, n)
def twice():
    os.fork()
    return os.getpid()
def daemonised():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(escaped=os.getpid())
            for number in (0, 1, 2):
                os.close(number)
            time.sleep(600)
        os._exit(0)
    os.wait()
    while not Path("escaped").exists():
        time.sleep(0.01)
    return "gone"
def spins():
    end = time.process_time() + 0.3
    while time.process_time() < end: pass
    held = b"x" * 200_000_000
def together(others: int):
    Path(str(os.getpid())).touch()
    while len([name for name in os.listdir() if name.isdigit()]) < others:
        time.sleep(0.01)
    return os.getpid()
def many(text: str): return len(text)
def affinity(): return sorted(os.sched_getaffinity(0))
def measures(): return os.environ["BRANCHLINE_METRICS"]
def reads(): return Path("data.txt").read_text()
def square(n): return n * n
def pools():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(square, range(3))
"""
LOUD = "def call(): return [os.environ.get(n) for n in ('NOISE', 'LANG')] + [os.getcwd()]"
USES = {
    "noise": f"import noisy, os\n{LOUD}\ndef kept(): return os.path.samefile(noisy.kept.fileno(), os.devnull)",
    "quiet": f"import os\n{LOUD}",
    "slow": "import endless\ndef call(): pass",
    "breaks": "import broken\ndef call(): pass",
    "threads": "import threaded\ndef call(): return [threaded.thread.is_alive(), threaded.thread.ident > 0]",
    "draws": "import numpy\ndef call(): return numpy.random.state",
    "shadows": "import shadow\ndef call(): return shadow.whose",
}


def environment(home: Path) -> Path:
    """Make an environment that has those packages, and return its interpreter."""
    venv.create(home, symlinks=True)
    packages = next(home.glob("lib/python*/site-packages"))
    for path, text in PACKAGES.items():
        (packages / path).parent.mkdir(exist_ok=True)
        (packages / path).write_text(text)
    return home / "bin" / "python"


class Shop:
    """A service folder, and the workers that are asked to run what is in it."""

    def __init__(self, home: Path, python: Path, **options: Any) -> None:
        self.home, self.service = home, home / "service"
        self.service.mkdir()
        uses = {f"{name}.py": text for name, text in USES.items()}
        for path, text in {**uses, "leaks.py": LEAKS, "steps.py": STEPS}.items():
            (self.service / path).write_text(text)
        self.bench = Bench(python, ROOT, ENV)
        self.workers = WarmWorkers(home / "workers", **{"grace": 0.5, "every": 0.02, **options})

    def order(self, call: str, **more: Any) -> dict[str, Any]:
        name = call.replace(":", "-")
        return {
            "step": name,
            "call": call,
            "output": str(self.home / "out" / name),
            "log": str(self.home / "logs" / name),
            "seconds": 60,
            "cwd": str(self.service),
            "env": {**ENV, "PYTHONPATH": f"{ROOT}:{self.service}"},
            **more,
        }

    def do(self, call: str, stopped: Callable[[], bool] = lambda: False, **more: Any) -> dict[str, Any]:
        return dict(self.workers.do(self.bench, self.order(call, **more), stopped))

    def value(self, call: str, **more: Any) -> Any:
        answer = self.do(call, **more)
        assert answer["ok"], answer
        return json.loads((Path(self.order(call, **more)["output"]) / "value.json").read_text())

    def pid(self, name: str) -> int:
        """The process that left its number there."""
        path = self.service / name
        assert wait_until(path.exists)
        return int(path.read_text())

    def family(self) -> dict[str, int]:
        """Everybody, from whoever watches the worker down to what escaped the step."""
        found = {name: self.pid(name) for name in ("step", "escaped", "child", "supervisor")}
        found["worker"] = psutil.Process(found["supervisor"]).ppid()
        found["shim"] = psutil.Process(found["worker"]).ppid()
        return found


def warm(shop: Shop) -> list[psutil.Process]:
    """The warm processes of this shop, by where they work."""
    found = []
    for each in psutil.process_iter(["cmdline"]):
        words = each.info["cmdline"] or []
        try:
            if "branchline.sdk.worker" in words and each.cwd().startswith(str(shop.home / "workers")):
                found.append(each)
        except psutil.Error:
            continue
    return found


def apart(shop: Shop, number: int) -> dict[str, Any]:
    """The places of one of several orders of the same step."""
    out, log = str(shop.home / "out" / str(number)), str(shop.home / "logs" / str(number))
    return {"parameters": {"others": 6}, "output": out, "log": log}
