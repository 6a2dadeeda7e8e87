"""This file prints what each part of the gateway costs a request: our documents whole, and with one part taken out.

Rules. Every row is an Envoy of its own with one worker thread before the same upstreams, started from the documents
that the route writer wrote; a row without a part has the same documents less that part. A request brings its unit and
asks by path for a service with a split, but where the row says otherwise. What is taken turns, in another order each
round; medians of processor time a request, and of each round's difference to the documents as they are. Where others
use the machine, parts of one per cent drown in that, and a 99th percentile is theirs: `--count` counts the instructions
of a request instead, one row after the other, under valgrind. Runs of it differ by up to 0.4 %; the kernel's, other
threads' and what a cache misses are not in it.
Run: python bench/filters.py [--count]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _counting import counted
from _gateway import Bench, bench, has_wrk, load, pin, pinned, processor

from branchline.adapters.envoy import FILES, binary, is_free
from branchline.adapters.envoy_routes import routes
from branchline.adapters.envoy_table import from_json

ROUNDS = 7
KEPT = ("bootstrap", "lds", "cds")
Documents = dict[str, Any]
Without = Callable[[Documents], None]


def connection(found: Documents) -> Any:
    """The settings of the one listener's HTTP connections."""
    return found["lds"]["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def no_log(found: Documents) -> None:
    """Nothing is logged."""
    del connection(found)["access_log"]


def text_log(found: Documents) -> None:
    """The same fields, as plain text in one line."""
    log = connection(found)["access_log"][0]["typed_config"]
    line = " ".join(log.pop("log_format")["json_format"].values())
    log["log_format"] = {"text_format_source": {"inline_string": f"{line}\n"}}


def no_request_id(found: Documents) -> None:
    """Requests have no id, and answers tell none."""
    connection(found)["generate_request_id"] = False
    del connection(found)["always_set_request_id_in_response"]


def no_dynamic_statistics(found: Documents) -> None:
    """Nothing is counted by status, and no time by revision; raw Envoy does both."""
    connection(found)["http_filters"][-1]["typed_config"]["dynamic_stats"] = False


def no_filter(word: str) -> Without:
    """One filter less, by a word of its name."""

    def without(found: Documents) -> None:
        filters = connection(found)["http_filters"]
        (gone,) = [each for each in filters if word in json.dumps(each["typed_config"]["@type"])]
        filters.remove(gone)
        name = gone["name"]
        found["rds"] = json.loads(json.dumps(found["rds"]), object_hook=lambda each: less(each, name))

    return without


def less(each: Documents, name: str) -> Documents:
    """What a route says of the filters that are left."""
    if "typed_per_filter_config" in each:
        each["typed_per_filter_config"].pop(name, None)
    return each


def no_fall_back(found: Documents) -> None:
    """A route leads to its revision alone, and to nobody else when that is sick."""
    arms = {}
    for each in found["cds"]["resources"]:
        kind = each.get("cluster_type", {}).get("typed_config", {})
        if "clusters" in kind:
            arms[each["name"]] = kind["clusters"][0]
    text = json.dumps(found["rds"])
    for arm, own in arms.items():
        text = text.replace(json.dumps(arm), json.dumps(own))
    found["rds"] = json.loads(text)


def less_of(kind: str, *names: str) -> Without:
    """One document without these members, wherever they stand in it."""

    def without(found: Documents) -> None:
        found[kind] = json.loads(
            json.dumps(found[kind]), object_hook=lambda each: {n: v for n, v in each.items() if n not in names}
        )

    return without


def as_it_is(found: Documents) -> None:
    """Nothing is taken out."""


VARIANTS: dict[str, Without] = {
    "as it is": as_it_is,
    "no log": no_log,
    "log as text": text_log,
    "no script for minting": no_filter(".lua."),
    "no limit of bodies": no_filter("body_size_limit"),
    "no fall-back": no_fall_back,
    "no retries": less_of("rds", "retry_policy"),
    "no hash of the unit": less_of("rds", "hash_policy", "use_hash_policy"),
    "no revision in answers": less_of("rds", "response_headers_to_add"),
    "no prefix told": less_of("rds", "request_headers_to_add"),
    "no client's address": less_of("lds", "use_remote_address"),
    "no request's id": no_request_id,
    "no limits of time": less_of("lds", "max_stream_duration", "request_headers_timeout"),
    "no paths made normal": less_of("lds", "normalize_path"),
    "no health checks": less_of("cds", "health_checks", "outlier_detection"),
    "no overload manager": less_of("bootstrap", "overload_manager"),
    "no statistics by status": no_dynamic_statistics,
}
ASKED = ("/housing/predict", True)
MORE = {"unit minted": ("/housing/predict", False), "one arm, no split": ("/sole/predict", True)}
RAW = "raw Envoy"
PATIENT = {"timeout": "30s", "interval": "5s", "no_traffic_interval": "1s", "no_traffic_healthy_interval": "5s"}


def written(up: Bench, mine: Path, without: Without, *, is_slow: bool = False) -> tuple[int, list[str]]:
    """The writer's documents less a part, in a folder of their own; the port, and what to start Envoy with.

    One that is slow is looked at with patience: its health checks cost nothing of a request.
    """
    mine.mkdir(parents=True)
    theirs = up.writer.envoy.folder
    found = {name: json.loads((theirs / f"{name}.json").read_text(encoding="utf-8")) for name in KEPT}
    table = from_json(json.loads((theirs / "table.json").read_text(encoding="utf-8")))
    found["rds"] = {"version_info": "1", "resources": routes(table)}
    without(found)
    port = next(port for port in random.sample(range(24000, 32000), 8000) if is_free("127.0.0.1", port))
    found["lds"]["resources"][0]["address"]["socket_address"]["port_value"] = port
    found["bootstrap"]["admin"]["address"]["pipe"]["path"] = str(mine / "admin")
    for each in found["cds"]["resources"] if is_slow else ():
        for check in each.get("health_checks", ()):
            check.update(PATIENT)
    for name, document in found.items():
        text = json.dumps(document).replace(f"{theirs}/", f"{mine}/").replace(FILES["rds"], "rds.json")
        (mine / f"{name}.json").write_text(text, encoding="utf-8")
    argv = [str(binary()), "-c", str(mine / "bootstrap.json"), "--concurrency", "1", "--disable-hot-restart"]
    return port, [*argv, "--log-level", "error", "--file-flush-interval-msec", "20"]


@contextlib.contextmanager
def variant(up: Bench, mine: Path, without: Without) -> Iterator[tuple[int, int]]:
    """An Envoy with the writer's documents less a part; its port and process id."""
    port, argv = written(up, mine, without)
    process = subprocess.Popen(argv, env={**os.environ, "BRANCHLINE_BOOT": "bench"}, start_new_session=True)
    try:
        pin(process.pid, 1)
        warm(f"http://127.0.0.1:{port}/housing/predict")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def warm(url: str) -> None:
    """Ask until it is answered: clusters are looked at before they are asked."""
    deadline, asked = time.monotonic() + 20, urllib.request.Request(url, headers={"x-branchline-unit": "ada"})
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"{url} is not answered")


def timed(up: Bench, folder: Path) -> None:
    """Print the processor time of each row."""
    with contextlib.ExitStack() as stack:
        rows = {
            name: (*stack.enter_context(variant(up, folder / str(number), without)), *ASKED)
            for number, (name, without) in enumerate(VARIANTS.items())
        }
        whole = rows["as it is"]
        rows |= {name: (*whole[:2], *asked) for name, asked in MORE.items()}
        rows[RAW] = (up.raw_port, up.raw_pid, "/predict", True)
        found: dict[str, list[float]] = {name: [] for name in rows}
        tails: dict[str, list[float]] = {name: [] for name in rows}
        failed = 0
        for _ in range(ROUNDS):
            for name in random.sample(list(rows), len(rows)):
                port, pid, path, units = rows[name]
                before = processor(pid)
                told = load(port, path, units=units)
                found[name].append((processor(pid) - before) / max(1, told.count) * 1e6)
                tails[name].append(told.p99)
                failed += told.failed
    print(f"load by {'wrk, 64 connections' if has_wrk() else 'Python, 8 connections'}; {ROUNDS} rounds of 2 s, medians")
    print(pinned())
    print(f"{'':24}{'us/req':>9}{'less than as it is':>20}{'share':>8}{'p99 ms':>9}{'from':>9}{'to':>9}")
    for name, costs in found.items():
        pairs = list(zip(costs, found["as it is"], strict=True))
        saved, share = (statistics.median(each) for each in ([b - a for a, b in pairs], [1 - a / b for a, b in pairs]))
        print(f"{name:24}{statistics.median(costs):>9.1f}{saved:>17.1f} us{share:>8.1%}", end="")
        print("".join(f"{how(tails[name]):>9.1f}" for how in (statistics.median, min, max)))
    print(f"failed: {failed}")


def counting(up: Bench, folder: Path) -> None:
    """Print the instructions of each row."""
    print(
        f"instructions a request, of the thread that serves\n{'':24}{'number':>9}{'less than as it is':>20}{'share':>8}"
    )
    whole = 0.0
    rows = {name: (without, *ASKED) for name, without in VARIANTS.items()}
    rows |= {name: (as_it_is, *asked) for name, asked in MORE.items()}
    for number, (name, (without, path, units)) in enumerate(rows.items()):
        port, argv = written(up, folder / str(number), without, is_slow=True)
        found = counted(argv, folder / str(number), port, path, units)
        whole = whole or found
        print(f"{name:24}{found:>9.0f}{whole - found:>20.0f}{1 - found / whole:>8.1%}", flush=True)
    resources = json.loads((folder.parent / "raw.json").read_text(encoding="utf-8"))
    port = next(port for port in range(23000, 32000) if is_free("127.0.0.1", port))
    resources["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = port
    (folder / "raw.json").write_text(json.dumps(resources), encoding="utf-8")
    argv = [str(binary()), "-c", str(folder / "raw.json"), "--concurrency", "1", "--disable-hot-restart"]
    found = counted([*argv, "--log-level", "error"], folder, port, "/predict", True)
    print(f"{RAW:24}{found:>9.0f}{whole - found:>20.0f}{1 - found / whole:>8.1%}")


def main() -> None:
    """Print a row for each part."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", action="store_true", help="count instructions, under valgrind")
    is_counted = parser.parse_args().count
    if is_counted and not shutil.which("valgrind"):
        raise SystemExit("valgrind is not installed: apt-get install valgrind, or the like")
    with bench() as up:
        (counting if is_counted else timed)(up, up.writer.envoy.folder.parent / "variants")


if __name__ == "__main__":
    main()
