"""This file installs the tools that benches measure beside, each in an environment of its own below `.cache/`."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def home(*requirements: str) -> Path:
    """The environment of a peer, made when it is not there; the first requirement names it."""
    found = ROOT / ".cache" / "bench" / requirements[0].replace("==", "-")
    if not (found / "installed").exists():
        print(f"installing {', '.join(requirements)} into {found.relative_to(ROOT)}", file=sys.stderr)
        venv.create(found, with_pip=True)
        pip = (found / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
        subprocess.run([*pip, *requirements], check=True)
        (found / "installed").touch()
    return found


def program(requirement: str) -> str:
    """The program of a peer that is called as its package is."""
    return str(home(requirement) / "bin" / requirement.partition("==")[0])
