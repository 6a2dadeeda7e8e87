"""This file looks for the programs that hold our files for Prometheus to what Prometheus says, and does without."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests import prometheus


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_machine_without_apt_does_without_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    begun = time.time() - 1
    assert prometheus.missing(begun, tmp_path) == ""
    assert prometheus.program("promtool", tmp_path) == ""
    assert prometheus.missing(begun, tmp_path).startswith("apt-get: ")
    assert prometheus.missing(time.time() + 1, tmp_path) == "", "an older session's"


def test_what_could_not_be_had_is_not_tried_for_by_every_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "apt-get", f"echo x >> {tmp_path}/tried; echo no such package >&2; exit 100")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("promtool", "prometheus", "promtool"):
        assert prometheus.program(name, tmp_path) == ""
    assert (tmp_path / "tried").read_text().count("x") == 2, "by the system's lists, and by our own"
    assert prometheus.missing(0, tmp_path) == "apt-get: no such package"


def test_a_fetch_that_was_killed_is_begun_anew_and_then_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killer: take what is half unpacked for a package."""
    there, unpacked = tmp_path / "cache", "unpacked/usr/bin"
    half = there / "fresh" / unpacked
    half.mkdir(parents=True)
    (half / "promtool").write_text("hal")
    script(tmp_path, "apt-get", f"echo x >> {tmp_path}/fetched; echo > prometheus_1_all.deb")
    made = f"{unpacked}/promtool {unpacked}/prometheus"
    script(tmp_path, "dpkg-deb", f"mkdir -p {unpacked}; for each in {made}; do echo '#!/bin/sh' > $each; "
           "chmod +x $each; done")  # fmt: skip
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    for name in ("promtool", "prometheus"):
        found = prometheus.installed(there) / name
        assert subprocess.run([found]).returncode == 0
    assert (tmp_path / "fetched").read_text().count("x") == 1
    assert prometheus.missing(0, there) == ""
