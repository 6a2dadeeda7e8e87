"""This file fakes the Environments port: a digest for a lock, and no environment."""

from __future__ import annotations

import hashlib
from pathlib import Path

from branchline.errors import EnvironmentFailed, LockMissing
from branchline.ports import Environment


class FakeEnvironments:
    """The Environments port; `broken` are services whose environment cannot be built, `built` every digest in order.

    Its packages are the names before `==` in the lock.
    """

    def __init__(self, home: Path = Path("/envs")) -> None:
        self.home = home
        self.broken: dict[str, str] = {}
        self.built: list[str] = []

    def ensure(self, service: str, folder: Path, python: str) -> Environment:
        """Know the environment of the lock."""
        lock = next((folder / name for name in ("uv.lock", "requirements.lock") if (folder / name).is_file()), None)
        if lock is None and (folder / "requirements.in").exists():
            raise LockMissing("requirements.in asks for packages", service=service)
        if service in self.broken:
            raise EnvironmentFailed(self.broken[service], service=service)
        text = lock.read_text(encoding="utf-8") if lock else ""
        digest = hashlib.sha256(f"{text}{python}{lock is None}".encode()).hexdigest()
        reused = digest in self.built
        if not reused:
            self.built.append(digest)
        lines = [line.partition("==")[0].strip() for line in text.splitlines() if "==" in line]
        names = tuple(sorted(name for name in lines if not name.startswith("#")))
        return Environment(digest, self.home / digest / "venv/bin/python", len(names), "checked", reused, names)

    def sdk(self) -> tuple[str, Path]:
        """One SDK for all."""
        return "5d" * 32, self.home / "sdk"
