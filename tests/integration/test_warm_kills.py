"""This file tests that nothing is left of a step, whoever is killed; and that workers come and go (F15, F16, F24)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from branchline.ports import Bench
from tests.family import has_ended
from tests.shops import ENV, ROOT, Shop, apart, environment, warm
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def shop(tmp_path: Path, python: Path) -> Iterator[Shop]:
    made = Shop(tmp_path, python)
    yield made
    made.workers.close()
    assert not list(tmp_path.glob("workers/*"))


# ── whoever is killed ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def under_way(shop: Shop) -> Iterator[tuple[Shop, dict[str, int], Future[dict[str, Any]]]]:
    """A step that has children, one of them out of its session."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(shop.do, "steps:family")
        yield shop, shop.family(), future
        shop.workers.close()


@pytest.mark.parametrize(
    ("victim", "reason", "error"),
    [
        ("step", "killed by 9", "killed (exit 137); out of memory?"),
        ("supervisor", "lost", "its supervisor was killed by signal 9"),
        ("worker", "lost", "its worker ended: it was killed"),
        ("shim", "lost", "its worker ended: it was killed"),
    ],
)
def test_nothing_is_left_when_one_is_killed(
    under_way: tuple[Shop, dict[str, int], Future[dict[str, Any]]], victim: str, reason: str, error: str
) -> None:
    """F24: by the time the answer is there, and the next order is served as if nothing had been."""
    shop, family, future = under_way
    os.kill(family[victim], signal.SIGKILL)
    answer = future.result(60)
    assert (answer["ok"], answer["reason"], answer["error"]) == (False, reason, error)
    below = {"step": ["step"], "supervisor": ["supervisor", "step"], "worker": ["worker", "supervisor", "step"]}
    gone = [*below.get(victim, ["shim", "worker", "supervisor", "step"]), "child", "escaped"]
    assert {name for name in gone if not has_ended(family[name])} == set()
    assert shop.value("steps:fine") == "fine"


DAEMON = """
import json, sys
from pathlib import Path
from branchline.adapters.workers import WarmWorkers
from branchline.ports import Bench
home, python, sdk, env, order = json.loads(sys.argv[1])
WarmWorkers(Path(home)).do(Bench(Path(python), Path(sdk), env), order)
"""


def test_nothing_is_left_when_the_daemon_is_killed(shop: Shop) -> None:
    """F24."""
    given = [str(shop.home / "daemon"), str(shop.bench.python), str(ROOT), ENV, shop.order("steps:family")]
    argv = (sys.executable, "-c", DAEMON, json.dumps(given))
    with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}) as daemon:
        family = shop.family()
        daemon.kill()
    assert wait_until(lambda: all(map(has_ended, family.values())))


def test_an_order_that_nobody_wants_ends_and_others_go_on(shop: Shop) -> None:
    """Whatever `stopped` raises is passed on when nothing runs any more."""

    def stopped() -> bool:
        if all((shop.service / name).exists() for name in ("child", "escaped")):
            raise KeyError("nobody wants it")
        return False

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(shop.do, "steps:together", **apart(shop, 0))
        with pytest.raises(KeyError, match="nobody wants it"):
            shop.do("steps:family", stopped)
        left = {name: shop.pid(name) for name in ("step", "child", "escaped")}
        assert all(map(has_ended, left.values()))
        assert not other.done()
        for number in range(5):
            (shop.service / str(number)).touch()
        assert other.result(60)["ok"]


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["greedy", "greedy_children"])
def test_a_tree_that_holds_more_than_it_may_is_killed(shop: Shop, name: str) -> None:
    answer = shop.do(f"steps:{name}", memory=150_000_000)
    assert (answer["ok"], answer["reason"], answer["error"]) == (
        False,
        "out of memory",
        "out of memory: more than 150 MB",
    )
    assert answer["peak"] > 150_000_000
    assert answer["exit"] == 137
    assert shop.value("steps:fine", memory=150_000_000) == "fine"


def test_memory_that_is_refused_is_told_as_such(shop: Shop) -> None:
    answer = shop.do("steps:refused")
    assert (answer["reason"], answer["error"].partition(" (")[0]) == ("out of memory", "MemoryError")


def test_a_step_that_is_out_of_time_leaves_nothing(shop: Shop) -> None:
    """F15, F16."""
    answer = shop.do("steps:family", seconds=4)
    assert (answer["reason"], answer["timed_out"], answer["left"]) == ("timed out", True, 1)
    assert all(has_ended(shop.pid(name)) for name in ("step", "child", "escaped"))


def test_a_daemon_that_a_step_leaves_is_ended_with_it(shop: Shop) -> None:
    """F16."""
    answer = shop.do("steps:daemonised")
    assert (answer["ok"], answer["value"], answer["left"]) == (True, "gone", 1)
    assert has_ended(shop.pid("escaped"))


def test_a_flood_of_output_keeps_its_newest(tmp_path: Path, python: Path) -> None:
    """F19."""
    shop = Shop(tmp_path, python, cap=1 << 20)
    answer = shop.do("steps:flood")
    shop.workers.close()
    assert (answer["ok"], answer["summary"][-1]) == (True, "x")
    sizes = [path.stat().st_size for path in (tmp_path / "logs").iterdir()]
    assert sum(sizes) <= 2 << 20
    assert (tmp_path / "logs" / "steps-flood").read_text().endswith(" 39999\n")


def test_an_answer_says_what_the_tree_used(shop: Shop) -> None:
    """2.12; and of this step only, whatever those before it used."""
    heavy, light = shop.do("steps:spins"), shop.do("steps:fine")
    assert 0.3 <= heavy["cpu"] < 5
    assert heavy["peak"] > 200_000_000
    assert light["cpu"] < 0.3
    assert light["peak"] < 150_000_000


def test_a_step_gets_as_many_processors_as_it_asks_for(shop: Shop) -> None:
    may = sorted(os.sched_getaffinity(0))
    assert shop.value("steps:affinity", cpus=may[-1:]) == may[-1:]
    assert shop.value("steps:affinity", cpus=[10_000]) == may


# ── workers come and go ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_with_nothing_to_do_ends_and_another_takes_its_place(tmp_path: Path, python: Path) -> None:
    shop = Shop(tmp_path, python, idle=0.2)
    assert shop.value("steps:fine") == "fine"
    assert wait_until(lambda: not warm(shop))
    assert shop.value("steps:fine") == "fine"
    shop.workers.close()


def test_the_worker_used_longest_ago_makes_room(tmp_path: Path, python: Path) -> None:
    shop = Shop(tmp_path, python, most=1)
    benches = [Bench(shop.bench.python, shop.bench.sdk, {**ENV, "N": str(n)}) for n in range(3)]
    for bench in benches:
        assert shop.workers.do(bench, shop.order("steps:fine"))["ok"]
        named = {each.environ()["N"] for each in warm(shop)}
        assert named == {bench.env["N"]}
    shop.workers.close()
    assert warm(shop) == []


def test_a_package_that_hangs_as_it_is_imported_holds_nobody_for_ever(tmp_path: Path, python: Path) -> None:
    shop = Shop(tmp_path, python, begins=2, patience=0.2)
    answer = shop.do("slow:call", lambda: True)
    assert (answer["reason"], answer["error"]) == ("stopped", "stopped")
    answer = shop.do("slow:call")
    assert (answer["reason"], answer["error"]) == ("lost", "its packages were not imported within 2 s")
    assert wait_until(lambda: not warm(shop))
    shop.workers.begins = 60
    assert shop.value("steps:fine") == "fine"
    shop.workers.close()


def test_a_step_whose_log_cannot_be_written_is_told(shop: Shop) -> None:
    (shop.home / "file").touch()
    answer = shop.do("steps:fine", log=str(shop.home / "file" / "log"))
    assert (answer["reason"], answer["error"].startswith("it cannot be run: ")) == ("lost", True)
    assert shop.value("steps:fine") == "fine"


def test_an_interpreter_that_is_not_there_is_told(shop: Shop) -> None:
    answer = shop.workers.do(Bench(Path("/no/such/python"), ROOT, ENV), shop.order("steps:fine"))
    assert answer["reason"] == "lost"
    assert "cannot run /no/such/python" in answer["error"]
