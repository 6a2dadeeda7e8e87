"""This file compiles the bytecode of an environment, once for a lock, and borrows what another one compiled already.

It lies beside the environment, where PYTHONPYCACHEPREFIX points. Two environments have the very same source when their
files are one file, linked to uv's cache: then its bytecode is linked, too, and to add a package costs that package
alone. Python itself puts the right file name into borrowed code as it is imported, and replaces bytecode by renaming.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def compiled(home: Path, donors: Iterable[Path] = ()) -> None:
    """Compile an environment's bytecode once, beside it; what cannot be compiled is left to its importer."""
    for donor in donors:
        borrow(home, donor)
    environ = {"PYTHONPYCACHEPREFIX": str(home / "pycache"), "LANG": "C.UTF-8"}
    python = home / "venv" / "bin" / "python"
    files = sum(1 for _ in home.glob("venv/lib/**/*.py"))
    workers = str(min(4, os.cpu_count() or 1, files // 500 + 1))  # to start a second one takes what 500 files take
    command = (str(python), "-m", "compileall", "-q", "-j", workers, str(home / "venv" / "lib"))
    subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    (home / "pycache").mkdir(exist_ok=True)


def borrow(home: Path, donor: Path) -> None:
    """Link the bytecode of every module that is one and the same file in both environments."""
    kept, wanted = pycache(donor), pycache(home)
    for folder, _, names in os.walk(kept):
        within = os.path.relpath(folder, kept)
        made = False
        for name in names:
            module = f"{within}/{name.partition('.')[0]}.py"
            with suppress(OSError):  # not a module of both, or there already
                if not os.path.samefile(f"{donor}/venv/{module}", f"{home}/venv/{module}"):
                    continue
                if not made:
                    os.makedirs(f"{wanted}/{within}", exist_ok=True)
                    made = True
                os.link(f"{folder}/{name}", f"{wanted}/{within}/{name}")


def pycache(home: Path) -> str:
    """Where Python keeps the bytecode of an environment's own files: below the prefix, at their full path."""
    return f"{home}/pycache{home.absolute()}/venv"
