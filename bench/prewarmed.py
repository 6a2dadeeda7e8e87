"""This file measures how soon a scikit-learn revision answers through the gateway: started cold, and forked pre-warmed.

The clock runs from `launch` to the first 200 through the gateway that our own parts have put up, with a model fitted
and pickled in the example's environment (NumPy, pandas, scikit-learn), bytecode compiled. Each round does all in turn;
the ratios are medians of each round's. Beside them: an interpreter that imports the same, loads and predicts once; and
`bentoml serve` of the same model until its first 200, installed by the bench (`--without-bentoml` leaves it out). What
the pre-warmed process costs is its proportional set size (PSS). Run: python bench/prewarmed.py
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _peers import home as peer

from branchline.adapters.envoy import is_free
from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.processes import ProcessLauncher
from branchline.adapters.uv import UvEnvironments
from branchline.ports import Bench, Endpoint, Group, Stamp

LOCK = Path(__file__).resolve().parents[1] / "examples" / "housing" / "housing" / "requirements.lock"
ROUNDS = 9
BODY = json.dumps({"x": [0.5, 1.0, 1.5, 2.0]}).encode()
FIT = """
import sys
from pathlib import Path
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from branchline.sdk import values
x = np.random.default_rng(7).normal(size=(2000, 4))
values.save(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, x.sum(axis=1) > 0), Path(sys.argv[1]))
"""
SERVING = """
import pandas
from sklearn.pipeline import Pipeline
def load(train: Pipeline) -> Pipeline: return train
def predict(request, model): return {"prediction": float(model.predict_proba([request["x"]])[0, 1])}
"""
ONCE = """
import sys
from pathlib import Path
import serving
from branchline.sdk import values
print(serving.predict({"x": [0.5, 1.0, 1.5, 2.0]}, serving.load(values.load(Path(sys.argv[1])))))
"""
BENTO = """
import os, pickle
import bentoml
import pandas
@bentoml.service(workers=1)
class Model:
    def __init__(self): self.model = pickle.load(open(os.environ["MODEL"], "rb"))
    @bentoml.api(route="/predict")
    def predict(self, x: list[float]) -> dict[str, float]:
        return {"prediction": float(self.model.predict_proba([x])[0, 1])}
"""


@dataclass
class House:
    """A service with a model, what launches its revisions, and a gateway in front of them."""

    home: Path
    python: Path
    sdk: Path
    launcher: ProcessLauncher
    writer: RouteWriter
    number: int = 0

    @property
    def env(self) -> dict[str, str]:
        """The variables that the engine gives, without a revision's own."""
        fixed = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        return fixed | {"PYTHONPYCACHEPREFIX": str(self.python.parents[2] / "pycache")}

    def run(self, program: str, *words: str) -> None:
        """Run a program in the service's environment and folder."""
        env = self.env | {"PYTHONPATH": f"{self.sdk}:{self.home}"}
        subprocess.run([str(self.python), "-P", "-c", program, *words], env=env, check=True, stdout=subprocess.DEVNULL)

    def group(self) -> Group:
        """The next revision."""
        self.number += 1
        own = {"PYTHONPATH": f"{self.sdk}:{self.home}", "BRANCHLINE_SERVICE_SPEC": str(self.home / "serving.json")}
        argv = (str(self.python), "-P", "-m", "branchline.sdk.serve")
        return Group(
            "housing", f"{self.number:040x}", f"1.{self.number}.0", "production", argv, self.home,
            {**self.env, **own, "HOME": str(self.home)}, "/-/health",
        )  # fmt: skip

    def answered(self, prewarmed: bool) -> tuple[float, float]:
        """Seconds from `launch` until it is ready, and until its first 200 through the gateway."""
        group = self.group()
        if prewarmed:
            group = replace(group, bench=Bench(self.python, self.sdk, self.env))
        stamp, begun = Stamp(self.number, 1), time.perf_counter()
        nonce = self.launcher.launch(group, stamp).nonce
        while (now := next(i for i in self.launcher.instances() if i.nonce == nonce)).state == "starting":
            time.sleep(0.002)
        ready = time.perf_counter() - begun
        assert now.state == "ready", now.tail
        end = Endpoint(now.revision, now.version, nonce, now.sockets, health=now.health)
        self.writer.offer("housing", [end], stamp)
        self.writer.shift("housing", 1, [(now.revision, 100)], stamp)
        address = self.writer.address("housing").removeprefix("http://").partition("/")
        first = first_answer(address[0], f"/{address[2]}predict", lambda: None) - begun
        self.launcher.stop(nonce, stamp)
        return ready, first

    def origin(self) -> int:
        """The process that is forked from, once it has imported."""
        (one,) = self.launcher.nurseries._kept.values()
        while not one.is_warm():
            time.sleep(0.01)
        return one.process.pid


def first_answer(address: str, path: str, alive: Callable[[], None]) -> float:
    """When the first 200 came."""
    while True:
        alive()
        connection = http.client.HTTPConnection(address)
        try:
            connection.request("POST", path, BODY, {"content-type": "application/json"})
            if connection.getresponse().status == 200:
                return time.perf_counter()
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.002)


@contextlib.contextmanager
def house() -> Iterator[House]:
    """Put everything up, and take it down."""
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        shutil.copy(LOCK, home / "requirements.lock")
        environments = UvEnvironments(home / "state")
        python, sdk = environments.ensure("bench", home, "").python, environments.sdk()[1]
        launcher = ProcessLauncher(home / "state", home / "r")
        writer = RouteWriter(home / "gateway", home / "r", ingest=home / "r" / "i.sock")
        stack.callback(writer.stop)
        stack.callback(launcher.close)
        one = House(home, python, sdk, launcher, writer)
        (home / "serving.py").write_text(SERVING)
        (home / "fitting.py").write_text(FIT)
        one.run(FIT, str(home / "train"))
        spec = {"predict": "serving:predict", "load": "serving:load", "results": {"train": str(home / "train")}}
        spec["modules"] = ["serving", "fitting"]
        (home / "serving.json").write_text(json.dumps(spec))
        yield one


def bentoml(environ: Mapping[str, str], at: Path) -> float:
    """Seconds from `bentoml serve` to its first 200."""
    port = next(port for port in range(23000, 32000) if is_free("127.0.0.1", port))
    program = str(peer("bentoml", f"scikit-learn=={version('scikit-learn')}", "pandas") / "bin" / "bentoml")
    argv = [program, "serve", "service:Model", "--host", "127.0.0.1", "--port", str(port)]
    begun = time.perf_counter()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, cwd=at, env=environ, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:

            def alive() -> None:
                if process.poll() is not None:
                    raise SystemExit(f"bentoml ended with exit {process.returncode}")

            return first_answer(f"127.0.0.1:{port}", "/predict", alive) - begun
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def version(package: str) -> str:
    """The version that the lock has."""
    found = re.search(rf"^{package}==(\S+)", LOCK.read_text(), re.M)
    assert found
    return found[1]


def held(pid: int) -> float:
    """Megabytes of memory that a process has for its own part (PSS)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found
    return int(found[1]) * 1024 / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-bentoml", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    taken: dict[str, list[float]] = {}
    with house() as one:
        environ = {**os.environ, "MODEL": str(one.home / "train" / "value.pkl"), "BENTOML_DO_NOT_TRACK": "True"}
        environ |= {"BENTOML_HOME": str(one.home / "bento")}
        (one.home / "service.py").write_text(BENTO)
        one.answered(prewarmed=True)  # begins what is forked from
        pid = one.origin()
        for number in range(given.rounds + 1):
            round_: dict[str, float] = {}
            round_["import, load, predict once, no HTTP"] = -time.perf_counter()
            one.run(ONCE, str(one.home / "train"))
            round_["import, load, predict once, no HTTP"] += time.perf_counter()
            for name, prewarmed in (("cold", False), ("pre-warmed", True)):
                ready, first = one.answered(prewarmed)
                round_ |= {f"{name}: ready": ready, f"{name}: first 200 through the gateway": first}
            if not given.without_bentoml:
                round_["bentoml serve: first 200"] = bentoml(environ, one.home)
            for name, seconds in round_.items() if number else ():  # the first round is not counted
                taken.setdefault(name, []).append(seconds)
        print(f"what is forked from holds {held(pid):.0f} MB (PSS)")
    base = taken["cold: first 200 through the gateway"]
    print(f"median of {given.rounds} rounds")
    for name, times in taken.items():
        line = f"{name:42} {statistics.median(times) * 1000:7.0f} ms   {ratio(times, base):5.2f} x cold"
        peers = taken.get("bentoml serve: first 200")
        print(line + (f"   {ratio(times, peers):5.2f} x bentoml" if peers else ""))


def ratio(these: list[float], those: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(this / that for this, that in zip(these, those, strict=True))


if __name__ == "__main__":
    main()
