"""This file makes locked environments with uv, shared by whoever has the same lock (the port Environments).

`envs/DIGEST` holds `venv`, `pycache` (its bytecode, compiled once) and at last `environment.json`: without that file
there is no environment, only what a killed builder left, which the next one removes. Rules:

- the digest is of the lock's bytes, the exact Python and the platform: the same lock is the same environment; a folder
  that asks for no packages needs no lock and gets Python alone;
- one builder per digest, held by a file lock that dies with it; others wait (F28);
- first from the cache alone, then with the network; never a Python that is not here already;
- files are linked to uv's cache, where a write would change every environment: at each use the names, sizes and times
  of the files are compared with what was built (the level "checked"), and a changed environment is refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import branchline
from branchline.errors import EnvironmentBusy, EnvironmentFailed, LockMissing
from branchline.ports import Environment

LEVEL = "checked"
RIDES = ("__init__.py", "errors.py", "core", "sdk")
NOT_OURS = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "UV_PYTHON"}
ABOUT = (
    "import platform, sysconfig;"
    "print(platform.python_implementation(), platform.python_version(), sysconfig.get_platform())"
)
NAME = re.compile(r"^\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")


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
    ) -> None:
        self.state, self.home = state, state / "envs"
        self.uv = uv or program()
        self.offline, self.wait, self.seconds = offline, wait, seconds
        inherited = os.environ if environ is None else environ
        # The machine's certificates are trusted, as git and pip do it: companies have their own.
        self.environ = {"UV_SYSTEM_CERTS": "1"} | {k: value for k, value in inherited.items() if k not in NOT_OURS}
        self.environ |= {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}

    def ensure(self, service: str, folder: Path, python: str) -> Environment:
        """Build or reuse the environment of the lock in a folder; see the port."""
        lock = lock_in(service, folder)
        interpreter, about = self.interpreter(service, python)
        digest = digest_of(lock.name, lock.read_bytes(), about) if lock else digest_of("", b"", about)
        home = self.home / digest
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.building(digest):
            reused = (home / "environment.json").exists()
            if not reused:
                self.sweep()
                self.build(service, lock, interpreter, home)
        return environment(service, digest, home, reused)

    def sdk(self) -> tuple[str, Path]:
        """Keep a copy of this `core` + `sdk`; see the port."""
        package = Path(branchline.__file__).parent
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

    def build(self, service: str, lock: Path | None, interpreter: str, home: Path) -> None:
        """Build into `home`; it counts from the moment that `environment.json` is there, and is removed on failure."""
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        try:
            self.install(service, lock, interpreter, home / "venv")
            compiled(home)
            name, venv = lock.name if lock else "", home / "venv"
            document = {"lock": name, "packages": installed(venv), "files": manifest(venv)}
            new = home / "environment.new"
            with new.open("w", encoding="utf-8") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            new.rename(home / "environment.json")
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise

    def install(self, service: str, lock: Path | None, interpreter: str, venv: Path) -> None:
        """Make the virtual environment and put exactly what is locked into it."""
        made = self.call(service, "venv", "--quiet", "--python", interpreter, str(venv))
        if made.returncode:
            raise EnvironmentFailed(told(made), service=service)
        if lock is None:
            return
        if lock.name == "uv.lock":
            disagreement(service, lock)
            words = [
                "sync",
                "--frozen",
                "--no-editable",
                "--no-dev",
                "--no-install-project",
                "--project",
                str(lock.parent),
            ]
            words += ["--python", str(venv / "bin" / "python")]
        else:
            words = ["pip", "sync", "--require-hashes", "--python", str(venv / "bin" / "python"), str(lock)]
        tried = [self.call(service, *words, "--offline", venv=venv)]
        if tried[0].returncode and not self.offline:
            tried.append(self.call(service, *words, venv=venv))
        if tried[-1].returncode:
            hint = f"{typed()} lock" if lock.name == "uv.lock" else compiling()
            cause = "\n".join(dict.fromkeys(map(told, tried)))
            raise EnvironmentFailed(cause, service=service, log=told(tried[-1], 20), hint=hint)

    def call(self, service: str, *words: str, venv: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run uv; raises EnvironmentFailed when it takes too long."""
        environ = {**self.environ, **({"UV_PROJECT_ENVIRONMENT": str(venv)} if venv else {})}
        try:
            return subprocess.run(
                (self.uv, *words),
                env=environ,
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

    def interpreter(self, service: str, python: str) -> tuple[str, str]:
        """The interpreter for a version (the one that runs Branchline for '' or its own) and what it says of itself."""
        if f"{platform.python_version()}.".startswith(f"{python}." if python else ""):
            own = (platform.python_implementation(), platform.python_version(), sysconfig.get_platform())
            return sys.executable, " ".join(own)
        found = self.call(service, "python", "find", "--no-project", "--system", python)
        path = found.stdout.strip()
        if found.returncode:
            hint = f"install Python {python}, or change `python` in the service file"
            raise EnvironmentFailed(told(found), service=service, hint=hint)
        about = subprocess.run((path, "-I", "-c", ABOUT), capture_output=True, text=True, check=False).stdout.strip()
        return path, about

    def sweep(self) -> None:
        """Remove what killed builders left: environments without their file whose lock nobody holds."""
        for lock in self.home.glob("*.lock"):
            home = lock.with_suffix("")
            if home.is_dir() and not (home / "environment.json").exists():
                with lock.open("a") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    shutil.rmtree(home, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ locks


def lock_in(service: str, folder: Path, typed_at: str = "") -> Path | None:
    """The lock file of a service's folder: `uv.lock`, else `requirements.lock`; None where nothing asks for packages.

    Raises LockMissing with the command to type, in which the service's folder is `typed_at`, else its name.
    """
    for name in ("uv.lock", "requirements.lock"):
        if (folder / name).is_file():
            return folder / name
    if asking := asks(folder):
        command = f"{typed()} lock" if asking == "pyproject.toml" else compiling(asking)
        hint = f"(cd {shlex.quote(typed_at or service)} && {command})"
        raise LockMissing(f"{asking} asks for packages", service=service, hint=hint)
    return None


def asks(folder: Path) -> str:
    """The file that asks for packages; '' where none does: then Python alone is the environment."""
    for name in ("requirements.in", "requirements.txt"):
        path = folder / name
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        if any(line.partition("#")[0].strip() for line in lines):
            return name
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return ""
    return "pyproject.toml" if project.get("dependencies") else ""


def digest_of(name: str, lock: bytes, about: str) -> str:
    """The digest of an environment: of its lock, the exact Python and the platform."""
    return hashlib.sha256(json.dumps([name, hashlib.sha256(lock).hexdigest(), about]).encode()).hexdigest()


def disagreement(service: str, lock: Path) -> None:
    """Raise EnvironmentFailed when `pyproject.toml` asks for other packages than `uv.lock` has (uv does not look)."""
    project = tomllib.loads((lock.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {normal(found[1]) for line in project.get("dependencies", []) if (found := NAME.match(line))}
    for package in tomllib.loads(lock.read_text(encoding="utf-8")).get("package", []):
        if normal(package["name"]) == normal(project["name"]):
            locked = {normal(dependency["name"]) for dependency in package.get("dependencies", [])}
            if asked != locked:
                names = ", ".join(sorted(asked ^ locked))
                cause = f"uv.lock was made for another pyproject.toml: {names}"
                raise EnvironmentFailed(cause, service=service, hint=f"{typed()} lock")


def normal(name: str) -> str:
    """A package's name in its one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


# ------------------------------------------------------------------------------------------------ what was built


def environment(service: str, digest: str, home: Path, reused: bool) -> Environment:
    """A built environment, its files checked; raises EnvironmentFailed when they were changed after it was built."""
    document = json.loads((home / "environment.json").read_text(encoding="utf-8"))
    found = manifest(home / "venv") if reused else document["files"]
    changed = sorted(
        name for name in found.keys() | document["files"].keys() if found.get(name) != document["files"].get(name)
    )
    if changed:
        raise EnvironmentFailed(
            f"{len(changed)} of its files were changed after it was built: {', '.join(changed[:3])}",
            service=service,
            hint=f"uv cache clean, then: rm -r {home}",
        )
    names = tuple(document["packages"])
    return Environment(digest, home / "venv" / "bin" / "python", len(names), LEVEL, reused, names)


def compiled(home: Path) -> None:
    """Compile an environment's bytecode once, beside it; what cannot be compiled is left to its importer."""
    environ = {"PYTHONPYCACHEPREFIX": str(home / "pycache"), "LANG": "C.UTF-8"}
    python = home / "venv" / "bin" / "python"
    workers = str(min(4, os.cpu_count() or 1))
    command = (str(python), "-m", "compileall", "-q", "-j", workers, str(home / "venv" / "lib"))
    subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    (home / "pycache").mkdir(exist_ok=True)


def installed(venv: Path) -> list[str]:
    """The names of the packages in it."""
    found = venv.glob("lib/*/site-packages/*.dist-info")
    return sorted(normal(path.name.removesuffix(".dist-info").rsplit("-", 1)[0]) for path in found)


def manifest(venv: Path) -> dict[str, list[int]]:
    """Size and time of every file but bytecode, by path."""
    found: dict[str, list[int]] = {}
    prefix = len(str(venv)) + 1
    todo = [str(venv)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        todo.append(entry.path)
                else:
                    status = entry.stat(follow_symlinks=False)
                    found[entry.path[prefix:]] = [status.st_size, status.st_mtime_ns]
    return found


def program() -> str:
    """The uv that was installed with Branchline, else the one on the path."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def typed() -> str:
    """uv as it can be typed here: its name, or where it lies when it is not on the path."""
    return "uv" if shutil.which("uv") else shlex.quote(program())


def compiling(asking: str = "requirements.in") -> str:
    """The command that locks what a service asks for, as it can be typed in its folder here."""
    return f"{typed()} pip compile --generate-hashes {asking} -o requirements.lock"


def told(ran: subprocess.CompletedProcess[str], lines: int = 8) -> str:
    """The last lines of what uv said."""
    return "\n".join((ran.stderr or ran.stdout).strip().splitlines()[-lines:])
