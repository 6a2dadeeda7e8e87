"""This file fakes the Environments port: a digest for a lock, and no environment."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from branchline.errors import EnvironmentFailed, LockMissing
from branchline.ports import Environment

LOCKS = ("uv.lock", "pylock.toml", "requirements.lock")


class FakeEnvironments:
    """The Environments port; `broken` are services whose environment cannot be built, `built` every digest in order,
    `used` when each was given last.

    Its packages are the names before `==` in the lock.
    """

    def __init__(self, home: Path = Path("/envs")) -> None:
        self.home = home
        self.broken: dict[str, str] = {}
        self.built: list[str] = []
        self.used: dict[str, float] = {}

    def ensure(self, service: str, folder: Path, python: str) -> Environment:
        """Know the environment of the lock."""
        if service in self.broken:
            raise EnvironmentFailed(self.broken[service], service=service)
        found = self.named(service, folder, python)
        if not found.reused:
            self.built.append(found.digest)
        self.used[found.digest] = time.time()
        return found

    def known(self, service: str, folder: Path, python: str) -> Environment | None:
        """The environment of the lock, when it was built."""
        found = self.named(service, folder, python)
        return found if found.reused else None

    def named(self, service: str, folder: Path, python: str) -> Environment:
        """What the lock is the environment of."""
        lock = next((folder / name for name in LOCKS if (folder / name).is_file()), None)
        if lock is None and (folder / "requirements.in").exists():
            raise LockMissing("requirements.in asks for packages", service=service)
        text = lock.read_text(encoding="utf-8") if lock else ""
        digest = hashlib.sha256(f"{text}{python}{lock is None}".encode()).hexdigest()
        lines = [line.partition("==")[0].strip() for line in text.splitlines() if "==" in line]
        names = tuple(sorted(name for name in lines if not name.startswith("#")))
        python_path, reused = self.home / digest / "venv/bin/python", digest in self.built
        return Environment(digest, python_path, len(names), "checked", reused, names)

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> Mapping[str, int]:
        """Forget what nobody keeps or used lately."""
        old = [each for each in self.built if each not in keep and time.time() - self.used[each] >= older_than]
        if not dry_run:
            self.built = [each for each in self.built if each not in old]
        return dict.fromkeys(old, 1)

    def sdk(self) -> tuple[str, Path]:
        """One SDK for all."""
        return "5d" * 32, self.home / "sdk"
