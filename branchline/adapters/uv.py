"""This file makes locked environments with uv, shared by whoever has the same lock (the port Environments).

`envs/DIGEST` holds `venv`, `pycache` (its bytecode, compiled once), `files` (what was built) and at last
`environment.json`: without that file there is no environment, only what a killed builder left, which the next one
removes. Rules:

- the digest is of the lock's bytes, the exact Python and the platform: the same lock is the same environment; a folder
  that asks for no packages needs no lock and gets Python alone;
- one builder per digest, held by a file lock that dies with it; others wait (F28);
- first from the cache alone, then with the network; never a Python that is not here already;
- files are linked to uv's cache, where a write would change every environment: at each use the names, sizes and times
  of the files are compared with what was built (the level "checked"), and a changed environment is refused;
- the time of `environment.json` is that of the last use, by which `sweep` knows what nobody needs any more.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from branchline.adapters.uv_bytecode import compiled
from branchline.adapters.uv_failures import Cure, understood, yanked
from branchline.adapters.uv_locks import lock_in, normal, program, refuse_loose, relocking, there, typed
from branchline.errors import EnvironmentBusy, EnvironmentFailed
from branchline.ports import Environment

LEVEL = "checked"
RIDES = ("__init__.py", "errors", "core", "sdk")
NOT_OURS = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "UV_PYTHON"}
ABOUT = (
    "import platform, sysconfig;"
    "print(platform.python_implementation(), platform.python_version(), sysconfig.get_platform(),"
    " sysconfig.get_config_var('SOABI'))"
)


class UvEnvironments:
    """Environments below `state/envs`; `offline` forbids the network, `wait` is the patience with another builder."""

    def __init__(
        self,
        state: Path,
        *,
        uv: str = "",
        offline: bool = False,
        wait: float = 900.0,
        seconds: float = 1800.0,
        environ: Mapping[str, str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.state, self.home = state, state / "envs"
        self.uv = uv or program()
        self.offline, self.wait, self.seconds, self.now = offline, wait, seconds, now
        inherited = os.environ if environ is None else environ
        # The machine's certificates are trusted, as git and pip do it: companies have their own.
        self.environ = {"UV_SYSTEM_CERTS": "1"} | {k: value for k, value in inherited.items() if k not in NOT_OURS}
        self.environ |= {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
        self.asked = {sys.executable: (RUNS, OWN)}
        self.pythons: dict[str, str] = {}
        self._sdk: tuple[str, Path] | None = None

    def ensure(self, service: str, folder: Path, python: str) -> Environment:
        """Build or reuse the environment of the lock in a folder; see the port."""
        lock, interpreter, digest = self.named(service, folder, python)
        home = self.home / digest
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.building(digest):
            reused = (home / "environment.json").exists()
            if not reused:
                self.clear()
                self.build(service, lock, interpreter, home)
            os.utime(home / "environment.json", (self.now(), self.now()))
            found = environment(digest, home, reused)
        if reused:
            unchanged(service, home)
        return found

    def known(self, service: str, folder: Path, python: str) -> Environment | None:
        """The environment that `ensure` would reuse; see the port."""
        digest = self.named(service, folder, python)[2]
        try:
            return environment(digest, self.home / digest, True)
        except FileNotFoundError:
            return None

    def named(self, service: str, folder: Path, python: str) -> tuple[Path | None, str, str]:
        """The lock of a folder, the interpreter for it, and the digest of the two."""
        lock = lock_in(service, folder)
        interpreter, about = self.interpreter(service, python)
        return lock, interpreter, digest_of(lock.name if lock else "", lock.read_bytes() if lock else b"", about)

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> Mapping[str, int]:
        """Remove what nobody keeps and nobody used lately; see the port."""
        freed = {}
        for built in sorted(self.home.glob("*/environment.json")):
            home = built.parent
            if home.name in keep:
                continue
            with self.alone(home.name) as alone:
                if alone and self.now() - built.stat().st_mtime >= older_than:
                    freed[home.name] = own_bytes(home)
                    if not dry_run:
                        built.unlink()  # first: what has lost a file is no environment any more
                        shutil.rmtree(home, ignore_errors=True)
        return freed

    def sdk(self) -> tuple[str, Path]:
        """Keep a copy of this `core` + `sdk`, as it is when it is first asked for; see the port."""
        if self._sdk is None or not self._sdk[1].exists():
            self._sdk = self._kept_sdk()
        return self._sdk

    def _kept_sdk(self) -> tuple[str, Path]:
        package = Path(__file__).parents[1]
        files = [path for ride in RIDES for path in sorted([package / ride, *(package / ride).rglob("*.py")])]
        files = [path for path in files if path.suffix == ".py"]
        content = hashlib.sha256()
        for path in files:
            content.update(f"{path.relative_to(package)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        kept = self.state / "sdk" / content.hexdigest()
        if not kept.exists():
            new = kept.with_name(f".{kept.name}.{os.getpid()}.{time.monotonic_ns()}")
            for path in files:
                copy = new / "branchline" / path.relative_to(package)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            try:
                new.rename(kept)
            except OSError:  # somebody else kept the same at the same moment
                shutil.rmtree(new)
        return content.hexdigest(), kept

    # -------------------------------------------------------------------------------------------- building

    @contextmanager
    def building(self, digest: str) -> Iterator[None]:
        """Be the only one who builds this environment; raises EnvironmentBusy after a long wait."""
        deadline = time.monotonic() + self.wait
        with (self.home / f"{digest}.lock").open("a") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise EnvironmentBusy(digest=digest[:12]) from None
                    time.sleep(0.05)
            yield

    @contextmanager
    def alone(self, digest: str) -> Iterator[bool]:
        """Whether nobody builds this environment, which then nobody does before the end of the block."""
        with (self.home / f"{digest}.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def clear(self) -> None:
        """Remove what killed builders left: environments without their file whose lock nobody holds."""
        for lock in self.home.glob("*.lock"):
            home = lock.with_suffix("")
            if home.is_dir() and not (home / "environment.json").exists():
                with self.alone(home.name) as alone:
                    if alone and not (home / "environment.json").exists():  # else it was built just now
                        shutil.rmtree(home, ignore_errors=True)

    def build(self, service: str, lock: Path | None, interpreter: str, home: Path) -> None:
        """Build into `home`; it counts from the moment that `environment.json` is there, and is removed on failure."""
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        try:
            self.install(service, lock, interpreter, home / "venv")
            compiled(home, self.lately())
            recorded(home, lock.name if lock else "")
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise

    def lately(self) -> list[Path]:
        """The environments that were used last, newest first: a few, for they have most of what another one needs."""
        stamps = []
        for built in self.home.glob("*/environment.json"):
            with suppress(FileNotFoundError):  # it was swept just now
                stamps.append((built.stat().st_mtime, built.parent))
        return [home for _, home in sorted(stamps, reverse=True)[:3]]

    def install(self, service: str, lock: Path | None, interpreter: str, venv: Path) -> None:
        """Make the virtual environment and put exactly what is locked into it."""
        if lock:
            refuse_loose(service, lock)
        self.bare(service, interpreter, venv)
        if lock:
            self.link(service, lock, venv)

    def bare(self, service: str, interpreter: str, venv: Path) -> None:
        """Make a virtual environment without packages."""
        made = self.call(service, "venv", "--quiet", "--no-project", "--python", interpreter, str(venv))
        if made.returncode:
            raise EnvironmentFailed(understood(made.stderr).cause, service=service, log=told(made))

    def link(self, service: str, lock: Path, venv: Path) -> None:
        """Put what is locked into a virtual environment, from the cache if it is all there, else with the network."""
        python = str(venv / "bin" / "python")
        if lock.name == "uv.lock":
            words = ["sync", "--frozen", "--no-editable", "--no-dev", "--no-install-project"]
            words += ["--project", str(lock.parent), "--python", python]
        else:
            words = ["pip", "sync", "--require-hashes", "--preview-features", "pylock", "--python", python, str(lock)]
        ran = self.call(service, *words, "--offline", venv=venv, cwd=lock.parent)
        if ran.returncode and not self.offline:
            ran = self.call(service, *words, venv=venv, cwd=lock.parent)
        if ran.returncode or yanked(ran.stderr):
            failed = understood(ran.stderr)
            hint = there(service, relocking(lock, failed.package))
            if failed.cure is Cure.AGAIN:
                hint = "see that the index can be reached, then type the same again"
            raise EnvironmentFailed(failed.cause, service=service, log=told(ran), hint=hint)

    def call(
        self, service: str, *words: str, venv: Path | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run uv; raises EnvironmentFailed when it takes too long."""
        environ = {**self.environ, **({"UV_PROJECT_ENVIRONMENT": str(venv)} if venv else {})}
        try:
            return subprocess.run(
                (self.uv, *words),
                env=environ,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise EnvironmentFailed(f"uv took longer than {self.seconds:g} s", service=service) from None
        except FileNotFoundError:
            raise EnvironmentFailed("there is no uv", service=service, hint="pip install uv") from None

    # -------------------------------------------------------------------------------------------- interpreters

    def interpreter(self, service: str, python: str) -> tuple[str, str]:
        """The interpreter for a version (the one that runs Branchline for '' or its own) and what it says of itself.

        It is asked once, and again when its file is another one: a package manager upgrades it in place.
        """
        own = f"{platform.python_version()}.".startswith(f"{python}." if python else "")
        path = sys.executable if own else self.found(service, python)
        if self.asked.get(path, ("", ""))[0] != stamp(path):
            self.asked[path] = (stamp(path), self.about(path))
        about = self.asked[path][1]
        if not about:
            raise EnvironmentFailed(f"{path} does not run", service=service, hint=f"install Python {python}")
        return path, about

    def found(self, service: str, python: str) -> str:
        """Where an interpreter of that version is: one that uv knows of, else one beside our own."""
        if not Path(self.pythons.get(python, "/nowhere")).exists():
            ran = self.call(service, "python", "find", "--no-project", "--system", python)
            path = ran.stdout.strip() if ran.returncode == 0 else self.beside(python)
            if not path:
                hint = f"install Python {python}, or change `python` in the service file"
                raise EnvironmentFailed(understood(ran.stderr).cause, service=service, log=told(ran), hint=hint)
            self.pythons[python] = path
        return self.pythons[python]

    def beside(self, python: str) -> str:
        """The newest interpreter of that version installed beside our own, as version managers do it; '' for none.

        Their stand-ins on the path answer only for the versions that are switched on.
        """
        minor = ".".join(python.split(".")[:2])
        paths = map(str, Path(sys.base_prefix).parent.glob(f"*/bin/python{minor}"))
        versions = {path: f"{self.about(path)} ? ?".split()[1] for path in paths}
        fitting = [path for path, version in versions.items() if f"{version}.".startswith(f"{python}.")]
        return max(fitting, key=lambda path: [int(n) for n in versions[path].split(".") if n.isdigit()], default="")

    def about(self, path: str) -> str:
        """What an interpreter says of itself; '' when it does not run."""
        try:
            command = (path, "-I", "-c", ABOUT)
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""


def digest_of(name: str, lock: bytes, about: str) -> str:
    """The digest of an environment: of its lock, the exact Python and the platform."""
    return hashlib.sha256(json.dumps([name, hashlib.sha256(lock).hexdigest(), about]).encode()).hexdigest()


def stamp(path: str) -> str:
    """What tells one file at a path from the next one there."""
    status = os.stat(path)
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


RUNS = stamp(sys.executable)
OWN = " ".join(
    (
        platform.python_implementation(),
        platform.python_version(),
        sysconfig.get_platform(),
        str(sysconfig.get_config_var("SOABI")),
    )
)


# ------------------------------------------------------------------------------------------------ what was built


def environment(digest: str, home: Path, reused: bool) -> Environment:
    """A built environment; raises FileNotFoundError where there is none."""
    document = json.loads((home / "environment.json").read_text(encoding="utf-8"))
    names = tuple(document["packages"])
    return Environment(digest, home / "venv" / "bin" / "python", len(names), LEVEL, reused, names)


def recorded(home: Path, lock: str) -> None:
    """Write down what was built, for good; the last file makes it an environment."""
    documents = {
        "files": "\n".join(manifest(home / "venv")),
        "environment.json": json.dumps({"lock": lock, "packages": installed(home / "venv")}),
    }
    for name, text in documents.items():
        new = home / f"{name}.new"
        with new.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(home / name)


def unchanged(service: str, home: Path) -> None:
    """Raise EnvironmentFailed when files were changed after they were built."""
    built, found = (home / "files").read_text(encoding="utf-8", errors="surrogateescape"), manifest(home / "venv")
    if built == "\n".join(found):
        return
    changed = sorted({line.rpartition("\t")[0] for line in {*built.split("\n")} ^ {*found}})
    if changed:  # else a folder was listed in another order
        cause = f"{len(changed)} of its files were changed after it was built: {', '.join(changed[:3])}"
        raise EnvironmentFailed(cause, service=service, hint=f"{typed()} cache clean && rm -r {home}")


def installed(venv: Path) -> list[str]:
    """The names of the packages in it."""
    found = venv.glob("lib/*/site-packages/*.dist-info")
    return sorted(normal(path.name.removesuffix(".dist-info").rsplit("-", 1)[0]) for path in found)


def manifest(venv: Path) -> list[str]:
    """Path, size and time of every file but bytecode, a line each.

    It is read at each use, so it is kept to what that takes: one `stat` a file, 5 to 8 microseconds here.
    """
    found: list[str] = []
    prefix = len(str(venv)) + 1
    todo = [str(venv)]
    while todo:
        folder = todo.pop()
        within = f"{folder[prefix:]}/" if len(folder) > prefix else ""
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(opened) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != "__pycache__":
                            todo.append(f"{folder}/{entry.name}")
                    else:
                        status = entry.stat(follow_symlinks=False)
                        found.append(f"{within}{entry.name}\t{status.st_size} {status.st_mtime_ns}")
        finally:
            os.close(opened)
    return found


def own_bytes(home: Path) -> int:
    """The bytes that are gone when an environment goes: those of files that uv's cache does not hold, too."""
    files = (path.lstat() for path in home.rglob("*") if path.is_symlink() or not path.is_dir())
    return sum(status.st_size for status in files if status.st_nlink == 1)


def told(ran: subprocess.CompletedProcess[str], lines: int = 20) -> str:
    """The last lines of what uv said."""
    return "\n".join((ran.stderr or ran.stdout).strip().splitlines()[-lines:])
