"""This file prints what each part of the gateway costs a request: our documents whole, and with one part taken out.

Rules. Every row is an Envoy of its own with one worker thread before the same upstreams, started from the documents
that the route writer wrote; a row without a part has the same documents less that part. A request brings its unit and
asks by path for a service with a split, but where the row says otherwise. What is taken turns, in another order each
round; medians of processor time a request, and of each round's difference to the documents as they are. Run:
python bench/filters.py
"""

from __future__ import annotations

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

from _gateway import Bench, bench, has_wrk, load, pin, pinned, processor

from branchline.adapters.envoy import binary, is_free

ROUNDS = 7
FILES = ("bootstrap", "lds", "cds", "rds")
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


def no_retries(found: Documents) -> None:
    """What was not begun is not tried elsewhere."""
    found["rds"] = json.loads(json.dumps(found["rds"]), object_hook=unretried)


def unretried(each: Documents) -> Documents:
    """The same without a word of trying again."""
    return {name: value for name, value in each.items() if name != "retry_policy"}


def as_it_is(found: Documents) -> None:
    """Nothing is taken out."""


VARIANTS: dict[str, Without] = {
    "as it is": as_it_is,
    "no log": no_log,
    "log as text": text_log,
    "no script for minting": no_filter(".lua."),
    "no limit of bodies": no_filter("body_size_limit"),
    "no fall-back": no_fall_back,
    "no retries": no_retries,
}
MORE = {"unit minted": ("/housing/predict", False), "one arm, no split": ("/sole/predict", True)}
RAW = "raw Envoy"


@contextlib.contextmanager
def variant(up: Bench, folder: Path, number: int, without: Without) -> Iterator[tuple[int, int]]:
    """An Envoy with the writer's documents less a part; its port and process id."""
    mine, theirs = folder / str(number), up.writer.envoy.folder
    mine.mkdir(parents=True)
    found = {name: json.loads((theirs / f"{name}.json").read_text(encoding="utf-8")) for name in FILES}
    without(found)
    port = next(port for port in range(24000 + 100 * number, 32000) if is_free("127.0.0.1", port))
    found["lds"]["resources"][0]["address"]["socket_address"]["port_value"] = port
    found["bootstrap"]["admin"]["address"]["pipe"]["path"] = str(mine / "admin")
    for name, document in found.items():
        (mine / f"{name}.json").write_text(json.dumps(document).replace(f"{theirs}/", f"{mine}/"), encoding="utf-8")
    argv = [str(binary()), "-c", str(mine / "bootstrap.json"), "--concurrency", "1", "--disable-hot-restart"]
    argv += ["--log-level", "error", "--file-flush-interval-msec", "20"]
    process = subprocess.Popen(argv, env={**os.environ, "BRANCHLINE_BOOT": "bench"})
    try:
        pin(process.pid, 1)
        warm(f"http://127.0.0.1:{port}/housing/predict")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def warm(url: str) -> None:
    """Ask until it is answered: clusters are looked at before they are asked."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"{url} is not answered")


def main() -> None:
    """Print a row for each part."""
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(bench())
        folder = up.writer.envoy.folder.parent / "variants"
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        rows = {
            name: (*stack.enter_context(variant(up, folder, number, without)), "/housing/predict", True)
            for number, (name, without) in enumerate(VARIANTS.items())
        }
        whole = rows["as it is"]
        rows |= {name: (*whole[:2], path, units) for name, (path, units) in MORE.items()}
        rows[RAW] = (up.raw_port, up.raw_pid, "/predict", True)
        found: dict[str, list[float]] = {name: [] for name in rows}
        failed = 0
        for _ in range(ROUNDS):
            for name in random.sample(list(rows), len(rows)):
                port, pid, path, units = rows[name]
                before = processor(pid)
                told = load(port, path, units=units)
                found[name].append((processor(pid) - before) / max(1, told.count) * 1e6)
                failed += told.failed
    print(f"load by {'wrk, 64 connections' if has_wrk() else 'Python, 8 connections'}; {ROUNDS} rounds of 2 s, medians")
    print(pinned())
    print(f"{'':24}{'us/req':>9}{'less than as it is':>20}{'share':>8}")
    for name, costs in found.items():
        pairs = list(zip(costs, found["as it is"], strict=True))
        saved, share = (statistics.median(each) for each in ([b - a for a, b in pairs], [1 - a / b for a, b in pairs]))
        print(f"{name:24}{statistics.median(costs):>9.1f}{saved:>17.1f} us{share:>8.0%}")
    print(f"failed: {failed}")


if __name__ == "__main__":
    main()
