"""This file tests the reporter of services on real sockets: it never waits, never raises, and tells what it drops."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from branchline.sdk.load import UnixConnection
from branchline.sdk.reporter import BATCH, Reporter
from branchline.sdk.serve import App
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds until what must come has to be there
Bodies = list[dict[str, Any]]


@dataclass
class Gateway:
    """What stands for the gateway: it keeps bodies and answers as it is told to, as soon as it is let."""

    address: str = ""
    bodies: list[Bodies] = field(default_factory=list)
    paths: Counter[str] = field(default_factory=Counter)
    answer: Callable[[Bodies], int] = lambda body: 200
    open: threading.Event = field(default_factory=threading.Event)

    @property
    def values(self) -> list[float]:
        """The values that were answered with 200, in order of size."""
        return sorted(each["value"] for body in self.bodies for each in body)

    def reporter(self, **options: Any) -> Reporter:
        """One that reports here."""
        return Reporter("housing", gateway=self.address, **options)

    def ran(self, script: str) -> subprocess.CompletedProcess[str]:
        """A process that reports here."""
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "BRANCHLINE_GATEWAY": self.address}
        begin = "import os, signal, sys, threading\nfrom branchline.sdk.reporter import Reporter\n"
        begin += "outcomes = Reporter('housing')\n"
        command = [sys.executable, "-c", begin + textwrap.dedent(script)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def serving(gateway: Gateway) -> Iterator[Gateway]:
    """It at a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

        def do_POST(self) -> None:
            gateway.open.wait()
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status = gateway.answer(body)
            told = {"outcomes": ["kept"] * len(body)} if status == 200 else {"detail": "so it is"}
            if status == 200:
                gateway.bodies.append(body)
                gateway.paths[self.path] += 1
            self.send_response(status)
            self.end_headers()
            with suppress(BrokenPipeError):  # who asked has ended
                self.wfile.write(json.dumps(told).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gateway.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield gateway
    finally:
        gateway.open.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    found = Gateway()
    found.open.set()
    with serving(found):
        yield found


def test_what_is_reported_is_sent_in_batches_once(gateway: Gateway) -> None:
    reporter = gateway.reporter()
    assert all(reporter.report(f"r{n}", n, unit=f"u{n}", id=f"i{n}", metric="rating") for n in range(3 * BATCH))
    assert reporter.flush(PATIENCE)
    assert gateway.values == list(range(3 * BATCH))
    assert max(len(body) for body in gateway.bodies) <= BATCH
    assert gateway.bodies[0][0] == {"value": 0.0, "request_id": "r0", "unit": "u0", "id": "i0", "metric": "rating"}
    assert gateway.paths.keys() == {"/housing/-/outcomes"}
    assert reporter.counts() == {"kept": 3 * BATCH, "waiting": 0, "dropped": 0}
    reporter.report("", 1, unit="u")
    assert reporter.flush(PATIENCE)
    assert gateway.bodies[-1] == [{"value": 1.0, "unit": "u"}]


def test_nothing_is_begun_before_the_first_report(gateway: Gateway) -> None:
    """A pre-warmed server is forked from a process that may have imported this, but may have no second thread."""
    reporter = Reporter("nobody", gateway=gateway.address)

    def begun() -> bool:
        return "outcomes of nobody" in [each.name for each in threading.enumerate() if each.daemon]

    assert reporter.flush(0)
    assert not begun()
    reporter.report("", 1)
    assert not begun()
    reporter.report("r", 1)
    assert begun()
    assert reporter.flush(PATIENCE)


def test_a_call_waits_for_nobody_and_the_buffer_has_an_end(gateway: Gateway) -> None:
    """Killer: an unbounded buffer eats the service, and one that is waited for hangs it."""
    gateway.open.clear()
    reporter = gateway.reporter(room=100)
    taken = [reporter.report(f"r{n}", n) for n in range(250)]
    assert taken == [True] * 100 + [False] * 150
    assert not reporter.flush(0)
    assert reporter.counts() == {"waiting": 100, "dropped": 150}
    gateway.open.set()
    assert reporter.flush(PATIENCE)
    assert gateway.values == list(range(100))
    assert reporter.report("r100", 100)  # there is room again
    assert reporter.flush(PATIENCE)


class Spiteful:
    """What no number is."""

    def __float__(self) -> float:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((None, 1), {}), (("", 1), {}), (("r", None), {}), (("r", "7"), {}), (("r", True), {}), (("r", math.nan), {}),
        (("r", math.inf), {}), (("r", 10**400), {}), (("r", Spiteful()), {}), ((Spiteful(), 1), {}), ((b"r", 1), {}),
        (("r" * 129, 1), {}), (("r\ud800", 1), {}), (("r", 1), {"unit": "u" * 513}), (("r", 1), {"id": 7}),
        (("r", 1), {"metric": ["m"]}), (("r", 1), {"of": "2"}), (("r", 1), {"before": math.nan}),
    ],
)  # fmt: skip
def test_what_is_wrong_in_itself_is_dropped_and_spoils_no_batch_F78(
    gateway: Gateway, words: tuple[Any, ...], named: dict[str, Any]
) -> None:
    reporter = gateway.reporter()
    assert not reporter.report(*words, **named)
    assert reporter.report("r", 1)
    assert reporter.flush(PATIENCE)
    assert gateway.bodies == [[{"value": 1.0, "request_id": "r"}]]
    assert reporter.counts() == {"kept": 1, "waiting": 0, "dropped": 1}


def test_a_second_number_is_sent_beside_the_value(gateway: Gateway) -> None:
    reporter = gateway.reporter()
    assert reporter.report("r", 1, of=3)
    assert reporter.report("s", 2, before=0)
    assert reporter.flush(PATIENCE)
    sent = [{"value": 1.0, "of": 3.0, "request_id": "r"}, {"value": 2.0, "before": 0.0, "request_id": "s"}]
    assert [one for body in gateway.bodies for one in body] == sent


def test_what_gets_no_answer_is_sent_again(gateway: Gateway) -> None:
    """1.30: reporting is idempotent."""
    left = [503, 429, 500]
    gateway.answer = lambda body: left.pop() if left else 200
    reporter = gateway.reporter()
    reporter.report("r", 1)
    assert reporter.flush(PATIENCE)
    assert (gateway.values, left, reporter.counts()["kept"]) == ([1.0], [], 1)


def test_one_that_is_refused_takes_no_other_with_it(gateway: Gateway) -> None:
    """Whatever a newer gateway thinks of it: the rest of its batch is kept."""
    gateway.answer = lambda body: 422 if any(each["value"] == 13 for each in body) else 200
    reporter = gateway.reporter()
    for n in range(50):
        reporter.report(f"r{n}", n)
    assert reporter.flush(PATIENCE)
    assert gateway.values == [n for n in range(50) if n != 13]
    assert reporter.counts() == {"kept": 49, "waiting": 0, "dropped": 1}
    gateway.answer = lambda body: 404
    reporter.report("r", 1)
    assert reporter.flush(PATIENCE)
    assert reporter.counts()["dropped"] == 2


def test_many_threads_report_at_once(gateway: Gateway) -> None:
    reporter = gateway.reporter(room=8 * 500)
    threads = [threading.Thread(target=lambda: [reporter.report("r", n) for n in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reporter.flush(PATIENCE)
    assert Counter(gateway.values) == dict.fromkeys(map(float, range(500)), 8)


def test_what_was_reported_last_is_sent_as_the_process_ends(gateway: Gateway) -> None:
    ended = gateway.ran("for n in range(1700): outcomes.report('r', n)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert gateway.values == list(range(1700))


def test_an_end_waits_no_longer_than_it_may_and_tells_what_is_lost(gateway: Gateway) -> None:
    gateway.open.clear()
    ended = gateway.ran("for n in range(3): outcomes.report('r', n)\noutcomes.report('', 1)")
    assert ended.returncode == 0
    told = "1 dropped (it names neither a request nor a unit)"
    assert ended.stderr.count("\n") == ended.stderr.count("branchline: outcomes of housing: ") > 0
    assert told in ended.stderr
    assert "3 not sent in time" in ended.stderr


def test_a_service_without_a_gateway_goes_on_and_is_told() -> None:
    ended = Gateway().ran("print(outcomes.report('r', 1), outcomes.flush(60))")
    assert (ended.returncode, ended.stdout) == (0, "True True\n")
    assert "no gateway is known: BRANCHLINE_GATEWAY is not set" in ended.stderr
    gone = Gateway("http://127.0.0.1:1").ran("outcomes.report('r', 1)")
    assert gone.returncode == 0
    assert "1 not sent in time; http://127.0.0.1:1 cannot be reached" in gone.stderr


def test_standard_error_that_is_gone_harms_nobody(gateway: Gateway) -> None:
    ended = gateway.ran("sys.stderr = None\noutcomes.report('', 1)\noutcomes.report('r', 1)")
    assert (ended.returncode, gateway.values) == (0, [1.0])


def test_a_fork_reports_its_own_and_nothing_of_its_parent(gateway: Gateway) -> None:
    """Servers are forked, by Branchline and by others, and in the middle of whatever other threads do."""
    script = """
        over = threading.Event()
        def chat():
            number = 1000
            while not over.is_set():
                number += outcomes.report("r", number)
                over.wait(0.0001)
        threads = [threading.Thread(target=chat) for _ in range(3)]
        outcomes.report("parent", 500)
        [each.start() for each in threads]
        children = []
        for number in range(20):
            pid = os.fork()
            if pid == 0:
                outcomes.report("child", number)
                os._exit(not outcomes.flush(60))
            children.append(pid)
        print(sum(os.waitpid(pid, 0)[1] for pid in children))
        over.set()
        [each.join() for each in threads]
        print(outcomes.flush(60))
    """
    ended = gateway.ran(script)
    assert (ended.returncode, ended.stdout) == (0, "0\nTrue\n"), ended.stderr
    assert [value for value in gateway.values if value < 1000] == [*range(20), 500]


def test_a_signal_handler_may_report(gateway: Gateway) -> None:
    """Killer: with a lock that is not its owner's to take again, the service hangs in its own handler."""
    script = """
        beats = []
        def beat(*_):
            beats.append(outcomes.report("beat", 1))
        signal.signal(signal.SIGALRM, beat)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for number in range(3000):
            assert outcomes.report("r", 0)
        while len(beats) < 10:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(outcomes.flush(60), outcomes.counts()["kept"] == 3000 + sum(beats))
    """
    ended = gateway.ran(script)
    assert (ended.returncode, ended.stdout) == (0, "True True\n"), ended.stderr


def test_what_branchline_serves_sends_it_before_it_ends(gateway: Gateway) -> None:
    """uvicorn ends by the signal that it got: nothing that was registered for the end is called."""
    reporter = gateway.reporter()
    told: list[str] = []

    async def receive() -> dict[str, Any]:
        if told:
            reporter.report("r", 1)
            return {"type": "lifespan.shutdown"}
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        told.append(f"{message['type']} {reporter.counts()['waiting']}")

    asyncio.run(App(lambda request: 1, "f00d")({"type": "lifespan"}, receive, send))
    assert told == ["lifespan.startup.complete 0", "lifespan.shutdown.complete 0"]
    assert gateway.values == [1.0]


SHOP = """
from branchline.sdk import reporter
reporter.GATHER_SECONDS = 3600
outcomes = reporter.Reporter("housing")
def predict(request):
    return outcomes.report("r", request["x"])
"""


def listens(path: Path) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_a_real_server_that_is_stopped_sends_it_before(gateway: Gateway, tmp_path: Path) -> None:
    """Killer: leave it to the end of the interpreter, which a signal never lets come."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "spec.json").write_text('{"predict": "shop:predict"}')
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{tmp_path}", "BRANCHLINE_GATEWAY": gateway.address,
        "BRANCHLINE_SERVICE_SPEC": f"{tmp_path}/spec.json", "BRANCHLINE_NONCE": "f00d",
        "BRANCHLINE_SOCKET": f"{tmp_path}/s",
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-P", "-m", "branchline.sdk.serve"], env=env) as server:
        try:
            assert wait_until(lambda: listens(tmp_path / "s"))
            connection = UnixConnection(f"{tmp_path}/s", PATIENCE)
            connection.request("POST", "/", '{"x": 7}')
            assert connection.getresponse().read() == b"true"
            connection.close()
            server.terminate()
            server.wait(PATIENCE)
        finally:
            server.kill()
    assert gateway.values == [7.0]


def test_a_server_of_another_make_says_itself_when(gateway: Gateway) -> None:
    """What a signal ends is gone but for what was sent: such a server calls `flush`."""
    script = """
        def end(*_):
            outcomes.flush(60)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, end)
        for n in range(10): outcomes.report("r", n)
        os.kill(os.getpid(), signal.SIGTERM)
    """
    assert gateway.ran(script).returncode == -signal.SIGTERM
    assert wait_until(lambda: gateway.values == list(range(10)))
