"""This file asks a real FastAPI application through a real gateway for its pages: they lead back to where they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.ports import Endpoint, Stamp
from tests.gateways import Gateway, gateway
from tests.waiting import wait_until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "listings" / "listings"


@pytest.fixture
def served(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    """The example's application: 1.0.0 serves, and 1.1.0-kim.1 is in staging."""
    path = runtime_dir / "app.sock"
    command = [sys.executable, "-m", "uvicorn", "app:app", "--uds", str(path), "--log-level", "warning"]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "BRANCHLINE_GATEWAY": "http://127.0.0.1:9"}
    with subprocess.Popen(command, cwd=EXAMPLE, env=environ) as server:
        try:
            assert wait_until(path.exists)
            with gateway(tmp_path, runtime_dir) as real:
                ends = [
                    Endpoint(
                        commit * 40, version, commit, (str(path),), split=split, health="/healthz", nonce_aware=False
                    )
                    for commit, version, split in (("a", "1.0.0", True), ("b", "1.1.0-kim.1", False))
                ]
                real.writer.offer("listings", ends, Stamp(1, 1))
                real.writer.shift("listings", 1, [("a" * 40, 100)], Stamp(1, 1))
                yield real
        finally:
            server.terminate()


def test_the_documents_of_an_application_lead_back_to_it(served: Gateway) -> None:
    """In production, as a line, in staging, and by a word that staging is pinned by."""
    for asked, prefix in (
        ("/listings", "/listings"),
        ("/listings@v1", "/listings@v1"),
        ("/listings@1.1.0-kim.1", "/listings@1.1.0-kim.1"),
        ("/listings@bbbbbbb", "/listings@1.1.0-kim.1"),
    ):
        page = served.ask(f"{asked}/docs")
        assert page.status == 200
        (document,) = re.findall(r"url: '([^']+)'", page.body["text"])
        assert document == f"{prefix}/openapi.json"
        schema = served.ask(document)
        assert [each["url"] for each in schema.body["servers"]] == [prefix]
        assert served.ask(f"{asked}/1").body["price"] == 184000
    assert "servers" not in served.ask("/openapi.json", host="listings.localhost").body
