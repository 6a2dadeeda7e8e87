"""This file types commands at a shell: a person's clone with a bare remote, the released `branchline`, real traffic.

Every command is a process of its own. What is merely waited for is asked of the daemon's socket, as commands do, so
that waiting costs no interpreter; what is asserted is asserted of what the commands print, of git and of the ledger.
The services are as light as they can be and still be real: a server of the standard library, or `predict` under
uvicorn.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from branchline.cli.transport import Answered, Client
from branchline.errors import DaemonDown
from branchline.settings import settings_of
from tests.locks import SERVER as ASGI
from tests.locks import lock_of
from tests.repositories import RealGit
from tests.servers import SERVER
from tests.waiting import wait_until

Document = dict[str, Any]
SERVICE_FILE = "branchline.toml"
PATIENCE = 240.0
UNDER_TEST = ("A/B test", "canary")
BRANCHLINE = (sys.executable, "-P", "-m", "branchline.cli.main")

APP = """\
kind = "app"
serve = {{ command = ["python", "server.py", "{mode}"], start = "{start}", drain = "0s" }}
rollout = {{ slice = 50, warm = "0s", canary = {{ duration = "0s", requests = {requests} }}{rollout} }}
{more}
[gates]
files = {{ command = ["test", "-f", "server.py"] }}
"""
MODEL = """\
kind = "model"
serve = { predict = "serving:predict", load = "serving:load", start = "60s", drain = "0s" }
steps = { level = "steps:level" }
metric = { name = "score", bounds = [0, 1], mde = 0.3, window = "1s" }
rollout = { share = 50, warm = "1h" }

[gates]
level = { value = "level.level", min = 0, max = 1 }
"""
SERVING = """\
def load(level):
    return level["level"]


def predict(request, model):
    return {"prediction": model}
"""
STEPS = """\
def level():
    print("level {level}")
    return {{"level": {level}}}
"""
NO_LOCK = "# nothing but Python itself\n"
LOG = "# Hypothesis\nA higher level scores more.\n\n# Metric\n`score`, higher is better.\n\n# Log\n- begun\n"


def app(name: str, mode: str = "well", *, start: str = "60s", requests: int = 1, rollout: str = "", more: str = "",
        note: str = "") -> dict[str, str]:  # fmt: skip
    """The files of a service that serves by a command; `mode` says how its server behaves (`tests.servers`)."""
    text = APP.format(mode=mode, start=start, requests=requests, rollout=rollout, more=more)
    files = {"branchline.toml": text, "server.py": SERVER, "requirements.lock": NO_LOCK, "NOTE": f"{note}\n"}
    return {f"{name}/{path}": content for path, content in files.items()}


def model(name: str, level: float, file: str = MODEL) -> dict[str, str]:
    """The files of a service that serves by `predict`: it answers its level, which its one step makes."""
    files = {
        "branchline.toml": file,
        "serving.py": SERVING,
        "steps.py": STEPS.format(level=level),
        "requirements.lock": lock_of(*ASGI),
        "EXPERIMENT.md": LOG,
    }
    return {f"{name}/{path}": content for path, content in files.items()}


@dataclass(frozen=True, slots=True)
class Typed:
    """What became of a command: its exit status, what it printed, what it said."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def document(self) -> Document:
        """The one JSON document that it printed."""
        found = json.loads(self.out)
        assert isinstance(found, dict), self
        return found

    @property
    def problem(self) -> Document:
        """The problem details that it ended with (`--json`)."""
        found = json.loads(self.err.strip().splitlines()[-1])
        assert isinstance(found, dict), self
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller of the gateway got."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def revision(self) -> str:
        """Who answered, as SERVICE@VERSION."""
        return self.headers.get("x-branchline-revision", "")


def is_old(pid: int, at: float) -> bool:
    """Whether a process is there that was there at a moment: numbers are given away again."""
    try:
        return psutil.Process(pid).create_time() <= at + 1
    except psutil.NoSuchProcess:
        return False


class Shell(RealGit):
    """A person at a shell in a clone, its bare remote, and the daemon that the commands start."""

    def __init__(
        self, folder: Path, *, remote: bool = True, make: bool = True, work: str = "work",
        environ: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(folder, remote=remote, make=make)
        self.work = folder / work
        self.environ = dict(environ or {})
        self.settings = settings_of(self.work, self.work / ".git")
        self.state = self.settings.state
        self.client = Client(self.settings.socket)

    # ---------------------------------------------------------------------------------------- typing

    def begin(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Type a command and do not wait for its end."""
        return subprocess.Popen(
            (*BRANCHLINE, *words), cwd=self.work, env={**os.environ, **self.environ, **environ}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def type(
        self, *words: str, ok: int | Sequence[int] | None = 0, seconds: float = 2 * PATIENCE, **environ: str
    ) -> Typed:
        """Type a command; its exit status has to be one of `ok` (None: any)."""
        process = self.begin(*words, **environ)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{words} did not end\n{out}\n{err}\n{self.told()}") from None
        found = Typed(words, process.returncode, out, err)
        wanted = (ok,) if isinstance(ok, int) else ok
        assert wanted is None or found.code in wanted, f"{words} ended with {found.code}\n{out}\n{err}\n{self.told()}"
        return found

    def ask(self, *words: str, ok: int | Sequence[int] | None = 0) -> Document:
        """The JSON document that a command prints."""
        return self.type(*words, "--json", ok=ok).document

    def refused(self, *words: str, ok: int, **environ: str) -> Document:
        """The problem details that a command ends with."""
        return self.type(*words, "--json", ok=ok, seconds=2 * PATIENCE, **environ).problem

    def told(self) -> str:
        """The last lines of the daemon's log, for whoever reads why a test failed."""
        log = self.state / "daemon.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log.exists() else ""

    # ---------------------------------------------------------------------------------------- waiting

    def status(self) -> Document:
        """The status, asked as commands ask it; {} while no daemon answers."""
        try:
            return self.client.get("/v1/status")
        except (DaemonDown, Answered):
            return {}

    def rows(self) -> dict[str, Document]:
        """Every row of the status by its branch; the incumbents by SERVICE@incumbent."""
        found = {}
        for service in self.status().get("services", ()):
            for row in service["rows"]:
                name = f"{service['name']}@incumbent" if row["phase"] == "live" else row["branch"]
                found[name] = dict(row)
        return found

    def row(self, name: str) -> Document:
        """One row; {} when there is none."""
        return self.rows().get(name, {})

    def until(self, what: str, holds: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Wait until something holds; tells how it stood when it does not."""
        if not wait_until(lambda: bool(holds()), seconds, every=0.05, most=0.25):
            told = json.dumps(self.status(), indent=1)
            raise AssertionError(f"waited {seconds:.0f} s in vain until {what}\n{told}\n{self.told()}")

    def until_state(self, branch: str, *states: str) -> Document:
        """Wait until a branch is in one of these states and return its row."""
        found: Document = {}

        def there() -> bool:
            found.clear()
            found.update(self.row(branch))
            return found.get("state") in states and bool(found["share"] or found["state"] not in UNDER_TEST)

        self.until(f"{branch} is {' or '.join(states)}", there)
        return found

    def until_waits(self, branch: str, what: str) -> Document:
        """Wait until a branch waits for something and return its row."""
        self.until(f"{branch} waits for {what}", lambda: self.row(branch).get("waits_for") == what)
        return self.row(branch)

    def ask_until_answered(self, service: str, version: str) -> None:
        """Send requests of ever new units until a revision has answered one: what a canary waits for."""

        def answered() -> bool:
            return self.call(f"/{service}/", unit=os.urandom(6).hex()).revision == f"{service}@{version}"

        self.until(f"{version} answers", answered)

    def until_rest(self) -> None:
        """Wait until git is what production is, for every service."""

        def rests() -> bool:
            document = self.status()
            return bool(document) and document["parity"]["ok"] and document["remote"]["reachable"]

        self.until("git and production agree", rests)

    def until_live(self, service: str, commit: str) -> Document:
        """Wait until a commit is the incumbent, merged, its branch gone, and nothing is left to do."""
        self.until(f"{commit[:7]} serves", lambda: self.row(f"{service}@incumbent").get("commit") == commit)
        self.until_rest()
        return self.row(f"{service}@incumbent")

    # ---------------------------------------------------------------------------------------- work

    def push(self, handle: str, files: Mapping[str, str | None], service: str, kind: str = "experiment") -> str:
        """Somebody else's push: a commit on a branch from the trunk, straight into the remote; returns the branch.

        The daemon is told to look at once, so that nobody waits for its next look.
        """
        branch = f"{kind}--{service}--{handle}"
        self.write(branch, files, message=f"Try {handle}")
        with contextlib.suppress(DaemonDown, Answered):
            self.client.post("/v1/look")
        return branch

    def on_main(self) -> None:
        """Check out the trunk as it is in the remote, clean."""
        self.git("fetch", "--quiet", "--prune", "origin")
        self.git("switch", "--quiet", "--force-create", "main", "origin/main")

    def mine(self, branch: str) -> None:
        """Have a branch of the remote in the clone, too, and the trunk checked out."""
        self.on_main()
        self.git("branch", "--quiet", "--force", branch, f"origin/{branch}")

    def first(self, service: str, files: Mapping[str, str | None]) -> str:
        """Have a first revision of a service live; returns its commit."""
        branch = self.push("first", files, service)
        commit = self.tip(branch)
        self.until_live(service, commit)
        self.client.post("/v1/look")  # what the trunk says of the service now is recorded, too
        return commit

    def history(self, service: str = "") -> list[Document]:
        """The audit, oldest first."""
        entries = self.client.get("/v1/history", service=service, limit=1000)["entries"]
        return list(reversed(entries))

    def events(self, branch: str) -> list[str]:
        """The names of the events that happened to a branch, in order."""
        service = branch.split("--")[1]
        return [entry["event"] for entry in self.history(service) if entry["detail"].get("branch") == branch]

    def ledger(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the ledger, read only, as any SQLite reads them."""
        path = self.state / "ledger.sqlite3"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return list(connection.execute(query, values))

    def trailers(self, ref: str = "main") -> list[str]:
        """The conclusions that a branch of the truth holds, SERVICE/GENERATION each, oldest first."""
        form = "--format=%(trailers:key=Branchline-Event,valueonly,separator=)"
        told = self.git("log", "--first-parent", "--reverse", form, ref, at=self.truth)
        return [line for line in told.splitlines() if line]

    def heads(self) -> set[str]:
        """The branches of the truth."""
        return set(self.git("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/", at=self.truth).splitlines())

    def refs(self) -> dict[str, str]:
        """Every ref of the truth with its object; annotated tags by what they point to."""
        form = "--format=%(refname) %(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"
        rows = self.git("for-each-ref", form, at=self.truth).splitlines()
        return {name: oid for name, _, oid in (row.partition(" ") for row in rows)}

    def is_whole(self) -> bool:
        """Whether git finds nothing to complain of, in the remote and in our mirror."""
        places = [self.truth, self.state / "mirror.git"]
        return all(self.git("fsck", "--strict", "--no-dangling", at=place) == "" for place in places)

    # ---------------------------------------------------------------------------------------- traffic

    @property
    def port(self) -> int:
        """The gateway's port."""
        table = json.loads((self.state / "gateway" / "table.json").read_text(encoding="utf-8"))
        return int(table["port"])

    def call(self, path: str, method: str = "GET", body: object = None, unit: str = "", **headers: str) -> Answer:
        """One request to the gateway on a connection of its own."""
        with self.connected() as connection:
            return request(connection, path, method, body, unit, headers)

    @contextmanager
    def connected(self) -> Iterator[HTTPConnection]:
        """A connection to the gateway for many requests."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()

    def see(self, service: str, units: Sequence[str], value: Callable[[Answer], float]) -> list[Answer]:
        """Ask for each unit and report its outcome, which may depend on who answered; all acknowledged."""
        answers = []
        with self.connected() as connection:
            for unit in units:
                answers.append(request(connection, f"/{service}/", "POST", {"ask": unit}, unit, {}))
                assert answers[-1].status == 200, answers[-1]
            told = [{"unit": unit, "value": value(each)} for unit, each in zip(units, answers, strict=True)]
            kept = request(connection, f"/{service}/-/outcomes", "POST", told, "", {})
            assert kept.status == 200, kept
        return answers

    # ---------------------------------------------------------------------------------------- processes

    @property
    def pid(self) -> int:
        """The daemon's process, by who listens on its socket; 0 when nobody does."""
        with contextlib.suppress(OSError):
            return self.client.pid()
        return 0

    def kill(self) -> None:
        """Kill the daemon (-9), which has to be there."""
        self.until("a daemon listens", lambda: self.pid)
        pid = self.pid
        assert pid > 1, "0 would be this very process group"
        handle = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], PATIENCE)
        finally:
            os.close(handle)

    def running(self, service: str) -> list[tuple[str, str, str, tuple[int, ...]]]:
        """Incarnation, version, perimeter and processes of every instance of a service that runs, sorted."""
        found = []
        for group in self.state.glob("instances/*/group.json"):
            with contextlib.suppress(FileNotFoundError):  # what ended long ago is cleared away at any moment
                told, *states = (json.loads(path.read_text()) for path in (group, *group.parent.glob("*/state.json")))
                known = [(pid, state["at"]) for state in states for pid in (state["pid"], state["child"])]
                pids = tuple(pid for pid, at in known if is_old(pid, at))
                if pids and told["service"] == service:
                    found.append((group.parent.name, told["version"], told["perimeter"], pids))
        return sorted(found)

    def instances_of(self, service: str, version: str) -> list[tuple[int, ...]]:
        """The processes of one version."""
        return [pids for _, each, _, pids in self.running(service) if each == version]

    def processes(self) -> list[str]:
        """The command lines of whatever runs for this repository."""
        found = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        return [line for line in found if str(self.folder) in line]

    def end(self) -> None:
        """Stop everything, as a person would, whatever the test left."""
        if self.state.is_dir():
            self.type("down", ok=None)


def request(
    connection: HTTPConnection, path: str, method: str, body: object, unit: str, headers: Mapping[str, str]
) -> Answer:
    """One request on a connection that stays open."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    told |= {"x-branchline-unit": unit} if unit else {}
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, told | ({"content-type": "application/json"} if text else {}))
    answer = connection.getresponse()
    content = answer.read().decode("utf-8", "replace")
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)


def path_of(address: str) -> str:
    """The path of a printed address, as `call` takes it."""
    return urlsplit(address).path


def shares_of(shell: Shell, service: str) -> dict[str, int]:
    """Version -> share of the traffic, as the gateway itself tells callers."""
    found = json.loads(shell.call(f"/{service}/-/v").body)["revisions"]
    return {row["revision"].partition("@")[2]: row["share"] for row in found}


def planned_shares(steps: Sequence[Sequence[str]]) -> dict[str, int]:
    """Version -> share after the last shift of a plan; {} when it shifts nothing."""
    shifts = [text for kind, text in steps if kind == "traffic"]
    pairs = [arm.split() for arm in shifts[-1].split(", ")] if shifts else []
    return {version: int(share.rstrip("%")) for version, share in pairs}


def planned_deletions(steps: Sequence[Sequence[str]]) -> set[str]:
    """The branches that a plan deletes."""
    return {text.split()[3] for kind, text in steps if kind == "git" and text.startswith("archive and delete ")}
