"""This file makes small locks for tests out of the project's own: their packages are pinned, hashed and cached."""

from __future__ import annotations

import re
from pathlib import Path

OWN = Path(__file__).resolve().parents[1] / "requirements.lock"
SERVER = ("uvicorn", "click", "h11")
TINY = ("iniconfig",)


def lock_of(*names: str) -> str:
    """The entries of these packages, which must need no others."""
    entries = re.split(r"\n(?=\S)", OWN.read_text(encoding="utf-8"))
    found = [entry for entry in entries if entry.partition("==")[0] in names]
    assert len(found) == len(names), names
    return "\n".join(found) + "\n"
