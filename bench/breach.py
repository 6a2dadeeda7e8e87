"""This file prints how soon nobody meets a challenger any more that has begun to fail: by its guardrail, nobody acting.

Rules. A canary with half of the traffic answers well for a while, and then every request with an error, in the middle
of its run. The clock starts with the first error that a visitor got, so what the evidence takes is in it, and stops
with the last answer of the challenger that any visitor got. Everything is real: a project with a remote, the daemon,
the gateway, servers in processes. Visitors pause between requests: what is measured is not the machine at its limit.
Run: python bench/breach.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

GOAL = 2.0  # seconds, the 99th percentile
VISITORS = 4
PAUSE = 0.01  # seconds between two requests of a visitor
BRANCH = "experiment--shop--eve"
FILE = """
kind = "app"
guardrails = { failed_requests = true }
rollout = { slice = 50, warm = "1h", canary = { duration = "1h", requests = 100000000 } }

[serve]
command = ["python", "server.py", "{socket}"]
health = "/healthz"

[gates]
unit = { command = ["true"] }
"""
SERVER = """
import http.server, os, socketserver, sys
ROUND, SICK = %r, %r

class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        is_well = self.path == "/healthz" or ROUND == 0 or not os.path.exists(SICK)
        self.send_response(200 if is_well else 500)
        self.send_header("content-length", "0")
        self.end_headers()

    def address_string(self):
        return ""

    def log_message(self, *words):
        pass

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

Server(sys.argv[1], Shop).serve_forever()
"""


@dataclass
class Crowd:
    """Visitors who ask all the while, each time as somebody new; when the challenger answered, and with what."""

    address: str
    incumbent: str = ""
    answers: list[tuple[float, int]] = field(default_factory=list)
    lost: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def visit(self, visitor: int) -> None:
        """Ask until it is over."""
        where, number = urlsplit(self.address), 0
        connection = HTTPConnection(where.netloc, timeout=30)
        while not self.over.wait(PAUSE):
            number += 1
            try:
                headers = {"x-branchline-unit": f"{visitor}-{number}-{time.time_ns()}"}
                connection.request("GET", where.path, headers=headers)
                answer = connection.getresponse()
                answer.read()
            except OSError:
                self.lost += 1
                connection.close()
                continue
            if answer.headers.get("x-branchline-revision") != self.incumbent:
                self.answers.append((time.monotonic(), answer.status))


def typed(tree: Path, *words: str) -> str:
    """What a command answers; its complaint ends this."""
    ended = subprocess.run(words, cwd=tree, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def branchline(tree: Path, *words: str) -> str:
    """What a command of ours answers."""
    return typed(tree, sys.executable, "-m", "branchline.cli.main", *words)


def rows(tree: Path) -> dict[str, dict[str, str]]:
    """The status by branch."""
    services = json.loads(branchline(tree, "status", "--json"))["services"]
    return {str(row["branch"]): row for each in services for row in each["rows"]}


def until(tree: Path, branch: str, *states: str) -> None:
    """Wait until a branch is in one of these states."""
    deadline = time.monotonic() + 60
    while rows(tree).get(branch, {}).get("state") not in states:
        if time.monotonic() > deadline:
            raise SystemExit(f"{branch} is {rows(tree).get(branch)}, not {states}")
        time.sleep(0.2)


def commit(tree: Path, number: int, sick: Path) -> None:
    """A revision of the shop: number 0 is the incumbent, which never fails."""
    (tree / "shop").mkdir(exist_ok=True)
    (tree / "shop" / "branchline.toml").write_text(FILE)
    (tree / "shop" / "server.py").write_text(SERVER % (number, str(sick)))
    typed(tree, "git", "add", "shop")
    typed(tree, "git", "commit", "-qm", f"Shop {number}")
    typed(tree, "git", "push", "-q", "-u", "origin", "HEAD")


def begun(home: Path) -> Path:
    """A project with a remote."""
    typed(home, "git", "init", "-q", "--bare", "--initial-branch=main", "remote.git")
    typed(home, "git", "clone", "-q", "remote.git", "tree")
    tree = home / "tree"
    for name, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):
        typed(tree, "git", "config", name, value)
    typed(tree, "git", "commit", "-q", "--allow-empty", "-m", "Begin")
    typed(tree, "git", "branch", "-M", "main")
    typed(tree, "git", "push", "-q", "-u", "origin", "main")
    return tree


def opened(tree: Path, sick: Path) -> Crowd:
    """The daemon, a shop that serves, and the branch of its challenger; the visitors to come."""
    branchline(tree, "up")
    typed(tree, "git", "switch", "-qc", "experiment--shop--ada")
    commit(tree, 0, sick)
    branchline(tree, "deploy")
    (service,) = json.loads(branchline(tree, "status", "--json"))["services"]
    (row,) = service["rows"]
    typed(tree, "git", "switch", "-q", "main")
    typed(tree, "git", "pull", "-q", "--ff-only")
    typed(tree, "git", "switch", "-qc", BRANCH)
    return Crowd(service["address"], f"shop@{row['version']}")


def once(tree: Path, number: int, sick: Path, crowd: Crowd) -> tuple[float, int]:
    """One breach: seconds from the first error to the challenger's last answer, and how many errors there were."""
    commit(tree, number, sick)
    until(tree, BRANCH, "canary")
    crowd.answers.clear()
    while len(crowd.answers) < 20:
        time.sleep(0.05)
    sick.touch()
    until(tree, BRANCH, "rolled back")
    time.sleep(0.5)
    errors = [at for at, status in crowd.answers if status == 500]
    last = max(at for at, _ in crowd.answers)
    sick.unlink()
    return last - errors[0], len(errors)


def main() -> None:
    """Print the distribution."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how often a challenger breaks")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        sick = Path(folder) / "sick"
        tree = begun(Path(folder))
        try:
            crowd = opened(tree, sick)
            threads = [threading.Thread(target=crowd.visit, args=(each,)) for each in range(VISITORS)]
            for thread in threads:
                thread.start()
            try:
                found = [once(tree, number, sick, crowd) for number in range(1, rounds + 1)]
            finally:
                crowd.over.set()
                for thread in threads:
                    thread.join()
        finally:
            branchline(tree, "down")
    seconds, errors = [each[0] for each in found], [each[1] for each in found]
    print(f"{rounds} challengers that begin to fail in their canary, {VISITORS} visitors; {crowd.lost} requests lost")
    print(f"from the first error to the last answer   p50 {statistics.median(seconds):5.2f} s   "
          f"max {max(seconds):5.2f} s   errors p50 {statistics.median(errors):.0f}, max {max(errors)}")  # fmt: skip
    print(f"goal: p99 at most {GOAL:.0f} s")


if __name__ == "__main__":
    main()
