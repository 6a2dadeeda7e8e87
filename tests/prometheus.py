"""This file finds promtool and a real Prometheus: on the path, else in the system's package, unpacked beside the cache.

The package is fetched as the machine's own apt is configured, once, and needs no root: apt's state, the file and what
is in it lie in `.cache/prometheus`. On a machine that has neither, the strict reader of `tests.exposition` has to do,
and the session says so at its end.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "prometheus"
PACKAGE = "prometheus"
SECONDS = 60.0  # for each program that is run: a test has 300, and some 30 MB are fetched
AGAIN = 600.0  # seconds until what could not be had is tried for again


class NoPackage(Exception):
    """Why the programs cannot be had here."""


def program(name: str, cache: Path = CACHE) -> str:
    """Where `promtool` or `prometheus` is; '' when this machine cannot have it, and `missing` then tells why."""
    if found := shutil.which(name):
        return found
    cache.mkdir(parents=True, exist_ok=True)
    told = cache / "missing"
    with (cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # many workers ask at once
        if told.is_file() and time.time() - json.loads(told.read_text())["tried"] < AGAIN:
            os.utime(told)
            return ""
        try:
            folder = installed(cache)
        except NoPackage as error:
            told.write_text(json.dumps({"tried": time.time(), "why": str(error)}))
            return ""
        told.unlink(missing_ok=True)
        return str(folder / name)


def missing(since: float, cache: Path = CACHE) -> str:
    """Why a session that began at a time had to do without; '' when it did not."""
    told = cache / "missing"
    if not told.is_file() or told.stat().st_mtime < since:
        return ""
    return str(json.loads(told.read_text())["why"])


def installed(cache: Path) -> Path:
    """The folder of the programs, fetched when they are not there yet; raises NoPackage."""
    there = cache / "package"
    if not there.is_dir():
        fresh = cache / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        run(fresh, "dpkg-deb", "-x", str(fetched(fresh)), "unpacked")
        for name in ("promtool", "prometheus"):
            run(fresh, str(fresh / "unpacked" / "usr" / "bin" / name), "--version")
        (fresh / "unpacked").replace(there)
        shutil.rmtree(fresh)
    return there / "usr" / "bin"


def fetched(folder: Path) -> Path:
    """The package's file, by what the system knows of packages, else by lists of our own; raises NoPackage."""
    for each in ("lists/partial", "archives/partial"):
        (folder / each).mkdir(parents=True)
    quick = ["-q", "-o", f"Dir::Cache={folder}", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=0",
             "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"]  # fmt: skip
    ours = [*quick, "-o", f"Dir::State::Lists={folder}/lists"]
    try:
        run(folder, "apt-get", *quick, "download", PACKAGE)
    except NoPackage:
        run(folder, "apt-get", *ours, "update")
        run(folder, "apt-get", *ours, "download", PACKAGE)
    return next(folder.glob(f"{PACKAGE}_*.deb"))


def run(folder: Path, *argv: str) -> None:
    """Run something in a folder; raises NoPackage with what it said."""
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoPackage(f"{argv[0]}: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise NoPackage(f"{argv[0]}: {said or f'it ended with {done.returncode}'}")
