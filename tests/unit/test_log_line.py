"""This file tests what is read from a line of the gateway's log (F70, F76)."""

from __future__ import annotations

import json

from branchline.adapters.envoy_listener import TOLD
from branchline.adapters.envoy_meter import fields


def test_a_request_id_with_blanks_is_whole() -> None:
    """Killer: take its first word alone, and two requests are one. Callers on the machine bring ids of their own."""
    words = ["-"] * (len(TOLD) - 1) + ["my id 1"]
    assert fields(json.dumps({"unit": "u1", "told": " ".join(words)}).encode()) == {"unit": "u1", "request": "my id 1"}
