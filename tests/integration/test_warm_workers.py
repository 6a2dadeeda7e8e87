"""This file tests that a warm worker is as good as a fresh process: nothing leaks from one step into another (2.11)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.shops import ROOT, Shop, apart, environment


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def shop(tmp_path: Path, python: Path) -> Iterator[Shop]:
    made = Shop(tmp_path, python)
    yield made
    made.workers.close()
    assert not list(tmp_path.glob("workers/*"))


# ── nothing leaks ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_of_a_step_is_there_for_the_next(shop: Shop) -> None:
    """Globals, variables, folder, import path, modules, umask, signals, files, threads, processors."""
    before = shop.value("leaks:look")
    assert shop.do("leaks:leak")["ok"]
    after = shop.value("leaks:look")
    assert after == before
    assert before["environ"] == shop.order("leaks:look")["env"]
    assert (before["cwd"], before["umask"], before["threads"]) == (str(shop.service), 0o022, 1)
    assert [name.split(" ")[0] for name in before["files"]] == ["memfd:answer", "memfd:facts"]


def test_a_step_finds_what_a_process_of_its_own_would(shop: Shop) -> None:
    """Its import path and signals are those of an interpreter that was started for it."""
    program = "import json, leaks; print(json.dumps(leaks.look()))"
    argv, env = (str(shop.bench.python), "-P", "-c", program), shop.order("leaks:look")["env"]
    told = subprocess.run(argv, env=env, cwd=shop.service, capture_output=True, check=True, preexec_fn=hearing)
    fresh = json.loads(told.stdout)
    warm = shop.value("leaks:look")
    for name in ("environ", "cwd", "path", "umask", "argv", "handlers", "blocked", "gc", "threads", "limit", "nice"):
        assert warm[name] == fresh[name], name


def hearing() -> None:
    """Undo what a background job, or one without a terminal, is started deaf to."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def test_each_step_draws_other_numbers(shop: Shop) -> None:
    assert len({shop.value("leaks:draw") for _ in range(3)}) == 3
    assert len({shop.value("draws:call") for _ in range(3)} | {"drawn once"}) == 4


def test_what_a_package_does_as_it_is_imported_is_done_to_those_who_import_it(shop: Shop) -> None:
    """As sklearn does: it sets variables. A step without it sees nothing of that, one with it what it expects."""
    here = str(shop.service)
    assert shop.value("noise:call") == ["loud", None, here]
    assert shop.value("quiet:call") == [None, "C.UTF-8", here]
    assert shop.value("noise:call") == ["loud", None, here]
    assert (shop.home / "logs" / "noise-call").read_text() == ""
    assert shop.value("noise:kept")


def test_a_package_that_raises_half_way_breaks_those_only_that_import_it(shop: Shop) -> None:
    for _ in range(2):
        answer = shop.do("breaks:call")
        assert (answer["reason"], "broken from the start" in answer["error"]) == ("raised", True)
        assert shop.value("steps:fine") == "fine"


def test_a_package_that_starts_a_thread_has_it_in_each_step(shop: Shop) -> None:
    assert [shop.value("threads:call") for _ in range(2)] == [[True, True]] * 2
    assert shop.value("quiet:call")


def test_a_module_of_the_service_hides_a_package_that_another_has_brought(shop: Shop) -> None:
    assert shop.value("shadows:call") == "the package"
    (shop.service / "shadow.py").write_text("whose = 'the service'")
    assert shop.value("shadows:call") == "the service"
    (shop.service / "shadow.py").unlink()
    (shop.service / "shadow").mkdir()
    assert shop.value("shadows:call") == "the package"


def test_the_code_of_a_step_is_read_each_time(shop: Shop) -> None:
    (shop.service / "changing.py").write_text("def call(): return 1")
    assert shop.value("changing:call") == 1
    (shop.service / "changing.py").write_text("def call(): return 22")
    assert shop.value("changing:call") == 22


# ── at once ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_orders_run_beside_one_another_in_one_worker(shop: Shop) -> None:
    """Each waits until all have begun."""
    with ThreadPoolExecutor(6) as pool:
        pids = list(pool.map(lambda n: shop.value("steps:together", **apart(shop, n)), range(6)))
    assert len(set(pids)) == 6


def test_an_order_may_be_larger_than_a_socket_holds(shop: Shop) -> None:
    assert shop.value("steps:many", parameters={"text": "x" * 3_000_000}) == 3_000_000


# ── what else a step does ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_fork_that_returns_too_is_no_second_answer(shop: Shop) -> None:
    answer = shop.do("steps:twice")
    assert (answer["ok"], isinstance(answer["value"], int)) == (True, True)


def test_a_pool_of_new_interpreters_works_in_a_step(shop: Shop) -> None:
    assert shop.value("steps:pools") == [0, 1, 4]


def test_a_step_is_told_where_its_metrics_go(shop: Shop) -> None:
    assert shop.value("steps:measures", metrics="/some/where") == "/some/where"


def test_what_a_step_met_is_in_the_answer(shop: Shop) -> None:
    (shop.service / "data.txt").write_text("7")
    here = str(shop.service)
    allowed = [sys.prefix, sys.base_prefix, str(shop.bench.python.parents[1]), str(ROOT / "branchline"), str(shop.home)]
    plan = {"root": here, "roots": [here], "allowed": allowed, "imported": ["steps"], "covered": {"steps": ["reads"]}}
    answer = shop.do("steps:reads", record=plan)
    assert (answer["ok"], answer["value"]) == (True, "7")
    assert ["file", "data.txt"] in [fact[:2] for fact in answer["facts"]]
    assert shop.do("steps:fine")["facts"] == []


def test_a_folder_that_is_not_there_is_told(shop: Shop) -> None:
    answer = shop.do("steps:fine", cwd="/no/such/folder")
    assert (answer["reason"], "No such file or directory: '/no/such/folder'" in answer["error"]) == ("raised", True)
