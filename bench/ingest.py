"""This file prints how many outcomes a second the ledger takes for good, and how soon a verdict is to be seen.

Rules. Real: the daemon, its ledger, the gateway, an A/B test whose units were served before; the senders are processes
of their own. What counts is what was answered with `kept`, which is on the disk by then; in the end the ledger is
asked whether it holds each of them once. Single outcomes come over 64 connections at a time, each its own request.
The verdict is that of the last outcome which an arm lacks: from the moment it is reported until `status` shows the end
of the test, less the metric's window, before which no unit counts; at rest, and while outcomes of another service come
as fast as they are taken. Run: python bench/ingest.py [UNITS [VERDICTS]]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from tests.e2e.levels import levels
from tests.typed import Shell, request
from tests.waiting import wait_until

UNITS, VERDICTS = 20_000, 5
ASKING = 8  # connections that are served before outcomes are reported
PATIENT = ('mde = 0.3, window = "1s"', 'mde = 0.001, window = "1h"')
WINDOW, LACKING = 1.0, 100
LOADS = 4  # times that all outcomes are reported anew while a verdict is waited for
GOALS = "goals: 5,000 outcomes a second, answered when they are on the disk; a verdict after at most 2 s"
SENDER = """
import json, sys, threading, time
from collections import Counter
from http.client import HTTPConnection

port, connections, path, bodies = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.load(open(sys.argv[4]))
words, left, lock, seconds = Counter(), iter(bodies), threading.Lock(), []
encoded = {id(body): json.dumps(body).encode() for body in bodies}

def send():
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    while True:
        with lock:
            body = next(left, None)
        if body is None:
            return
        begun = time.perf_counter()
        connection.request("POST", path, encoded[id(body)], {"content-type": "application/json"})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        with lock:
            words.update(told["outcomes"])
            seconds.append(time.perf_counter() - begun)

threads = [threading.Thread(target=send) for _ in range(connections)]
begun = time.perf_counter()
[each.start() for each in threads]
[each.join() for each in threads]
took, seconds = time.perf_counter() - begun, sorted(seconds)
print(json.dumps([took, words, seconds[len(seconds) // 2], seconds[-1]]))
"""
REPORTER = """
import json, os, sys, time
os.environ["BRANCHLINE_GATEWAY"] = f"http://127.0.0.1:{sys.argv[1]}"
from branchline.sdk.reporter import Reporter

reporter, bodies = Reporter("rate", room=1 << 20), json.load(open(sys.argv[4]))
begun = time.perf_counter()
for body in bodies:
    reporter.report(body["request_id"], body["value"], id=body["id"])
called = time.perf_counter() - begun
assert reporter.flush(120)
print(json.dumps([time.perf_counter() - begun, reporter.counts(), called / len(bodies), 0]))
"""


def served(shell: Shell, service: str, units: list[str]) -> dict[str, tuple[str, str]]:
    """Ask for every unit; who answered it, and the request's id."""
    found: dict[str, tuple[str, str]] = {}
    left, lock = iter(units), threading.Lock()

    def ask() -> None:
        with shell.connected() as connection:
            while True:
                with lock:
                    unit = next(left, None)
                if unit is None:
                    return
                answer = request(connection, f"/{service}/", "POST", {}, unit, {})
                found[unit] = (answer.revision, answer.headers["x-request-id"])

    threads = [threading.Thread(target=ask) for _ in range(ASKING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def sender(
    shell: Shell, bodies: list[object], connections: int, program: str = SENDER
) -> subprocess.Popen[bytes]:  # fmt: skip
    """A process that sends these bodies."""
    path = shell.folder / "bodies.json"
    path.write_text(json.dumps(bodies))
    words = (sys.executable, "-c", program, str(shell.port), str(connections), "/rate/-/outcomes", str(path))
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def sent(process: subprocess.Popen[bytes]) -> tuple[float, Counter[str], float, float]:
    """What a sender did: seconds, words, and the median and longest time of a body."""
    took, told, median, longest = json.loads(process.communicate()[0])
    return took, Counter(told), median, longest


def cut(outcomes: list[dict[str, object]], size: int) -> list[object]:
    """Outcomes in bodies of a size."""
    return [outcomes[n : n + size] for n in range(0, len(outcomes), size)]


@contextmanager
def shop() -> Iterator[Shell]:
    """A person's shell whose daemon runs; everything is stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
    shell = Shell(folder, environ={"UV_OFFLINE": "1"})
    try:
        shell.type("up")
        yield shell
    finally:
        shell.end()
        shutil.rmtree(folder, ignore_errors=True)


def under_test(shell: Shell, service: str, handle: str, changed: Mapping[str, str]) -> str:
    """Bring a challenger under test; its branch."""
    branch = shell.push(handle, {f"{service}/{name}": text for name, text in changed.items()}, service)
    shell.until_state(branch, "A/B test")
    return branch


def rates(shell: Shell, count: int) -> list[dict[str, object]]:
    """Print how fast outcomes of so many units are kept, in batches, one by one, and by the SDK's reporter.

    Returns outcomes that can be reported once more, under another id.
    """
    files = levels("rate")
    files["rate/branchline.toml"] = files["rate/branchline.toml"].replace(*PATIENT)
    shell.first("rate", files)
    under_test(shell, "rate", "ada", {"level": "0.6\n"})
    begun = time.perf_counter()
    units = served(shell, "rate", [f"unit-{n}" for n in range(count)])
    print(f"{count} units were served, {count / (time.perf_counter() - begun):.0f} a second")
    by_request = [{"request_id": request, "value": 0.5} for _, request in units.values()]

    def named(mark: str, n: int | None = None) -> list[dict[str, object]]:
        return [{**each, "id": f"{mark}-{place}"} for place, each in enumerate(by_request[:n])]

    daemon = psutil.Process(shell.pid)
    rows: list[tuple[str, list[object], int, str]] = [
        ("500 in a batch, 1 sender, by unit", cut([{"unit": unit, "value": 0.5} for unit in units], 500), 1, SENDER),
        ("500 in a batch, 4 senders", cut(named("four"), 500), 4, SENDER),
        ("2,000 in a batch, 2 senders", cut(named("two"), 2000), 2, SENDER),
        ("50 in a batch, 16 senders", cut(named("sixteen"), 50), 16, SENDER),
        ("one by one, 64 senders", list(named("single", count // 4)), 64, SENDER),
        ("by the reporter", list(named("reporter")), 1, REPORTER),
    ]
    total = 0
    for what, bodies, connections, program in rows:
        before = daemon.cpu_times()
        took, words, median, longest = sent(sender(shell, bodies, connections, program))
        after = daemon.cpu_times()
        spent = after.user + after.system - before.user - before.system
        kept, total = words["kept"], total + words["kept"]
        shown = f"{what:36}{kept / took:8.0f} a second   {spent / max(kept, 1) * 1e6:5.0f} us of the daemon each"
        each = f"median {median * 1000:.0f} ms, max {longest * 1000:.0f} ms a body"
        told = each if program is SENDER else f"{median * 1e6:.1f} us a call"
        print(f"{shown}   {told}   {'' if len(words) == 1 else dict(words)}".rstrip())
    ((found, distinct),) = shell.ledger("SELECT count(*), count(DISTINCT key) FROM outcome WHERE service = 'rate'")
    print(f"in the ledger    {found} outcomes, {distinct} different ones, {total} were answered with kept")
    return by_request


def verdict(
    shell: Shell, branch: str, mark: str, busy: Callable[[], subprocess.Popen[bytes]] | None = None
) -> tuple[float, float]:
    """Seconds from the outcome that makes a verdict, its window taken off, until status shows the end of the test.

    And how many outcomes of another service were kept a second, meanwhile.
    """
    challengers = others = number = 0

    def see() -> tuple[bool, dict[str, object]]:
        nonlocal number
        number += 1
        unit = f"{mark}-{number}"
        answer = request(connection, "/verdict/", "POST", {}, unit, {})
        value = json.loads(answer.body)["prediction"] + (number % 5 - 2) / 50
        return answer.revision.partition("@")[2] == row["version"], {"unit": unit, "value": value}

    def say(outcomes: list[dict[str, object]]) -> None:
        told = request(connection, "/verdict/-/outcomes", "POST", outcomes, "", {})
        assert set(json.loads(told.body)["outcomes"]) == {"kept"}, told

    row = shell.row(branch)
    with shell.connected() as connection:
        while challengers < LACKING - 1 or others < LACKING + 10:
            outcomes = []
            for new, outcome in [see() for _ in range(20)]:
                if not new or challengers < LACKING - 1:  # else it is not reported
                    outcomes.append(outcome)
                    challengers, others = challengers + new, others + (not new)
            say(outcomes)
        wait_until(lambda: False, WINDOW + 2)
        assert shell.row(branch)["state"] == "A/B test", "it had a verdict before"
        load = busy() if busy else None
        before = kept(shell)
        assert load is None or wait_until(lambda: kept(shell) > before + 2000), "no load"
        while True:
            new, outcome = see()
            if new:
                break
        begun = time.perf_counter()
        say([outcome])
    before = kept(shell)
    assert wait_until(lambda: shell.row(branch).get("state") != "A/B test", every=0.05)
    took, rate = time.perf_counter() - begun, (kept(shell) - before) / (time.perf_counter() - begun)
    if load is not None:
        assert load.poll() is None, "the load had ended before the verdict"
        load.kill()
        load.communicate()
    return took - WINDOW, rate


def kept(shell: Shell) -> int:
    """Outcomes in the ledger."""
    return int(shell.ledger("SELECT max(number) FROM outcome")[0][0])


def main(units: int = UNITS, verdicts: int = VERDICTS) -> None:
    """Print both."""
    with shop() as shell:
        outcomes = rates(shell, units)
        shell.first("verdict", levels("verdict"))
        for words in ("at rest", "under load"):
            found, taken = [], []
            for number in range(verdicts):
                changed = {"level": "0.6\n" if shell.row("verdict@incumbent")["version"] == "1.0.0" else "0.2\n"}
                branch = under_test(
                    shell, "verdict", f"try-{number}-{len(words)}", {**changed, "note": f"{words} {number}\n"}
                )
                load = [{**each, "id": f"load-{number}-{n}"} for n, each in enumerate(outcomes * LOADS)]
                busy = partial(sender, shell, cut(load, 500), 2) if words == "under load" else None
                seconds, rate = verdict(shell, branch, f"{words}-{number}".replace(" ", "-"), busy)
                found.append(seconds)
                taken.append(rate)
                shell.until("it is concluded", lambda branch=branch: branch not in shell.heads())  # type: ignore[misc]
                shell.until_rest()
            seen, others = ", ".join(f"{each:.2f}" for each in found), ", ".join(f"{each:.0f}" for each in taken)
            print(f"verdict {words:12}{seen} s beyond the window; meanwhile {others} outcomes a second")
    print(GOALS)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
