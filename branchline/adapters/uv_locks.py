"""This file knows lock files: which one of a folder counts, whether it fixes all it names, what makes it anew.

The first of LOCKS that is there counts, alone; a `requirements.txt` is a lock when everything in it has a hash, and
else a wish. What a lock does not fix by hash or commit is refused by name: the digest of the lock would say that
nothing has changed when it has. Commands are written as they can be typed in the folder, on this machine.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from branchline.errors import EnvironmentFailed, LockMissing

LOCKS = ("uv.lock", "pylock.toml", "requirements.lock", "requirements.txt")
NAME = re.compile(r"^\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
COMMENT = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
EXACT = re.compile(r"^[^=<>!~;]+===?\s*([^\s,;*]+)(?![^;\s]*\*)\s*(?:;|--|$)")
ADDRESS = re.compile(r"[a-z+]+://")
ELSEWHERE = re.compile(r"-r|-c|-e|--requirement|--constraint|--editable")


def lock_in(service: str, folder: Path, typed_at: str = "") -> Path | None:
    """The lock file of a service's folder, the first of LOCKS; None where nothing asks for packages.

    Raises LockMissing with the command to type, in which the service's folder is `typed_at`, else its name.
    """
    if not folder.is_dir():
        raise LockMissing(f"there is no folder {folder.name}", service=service)
    for name in LOCKS:
        path = folder / name
        if path.is_file() and (name != "requirements.txt" or fixed_by_hash(path)):
            return path
    if asking := asks(folder):
        raise LockMissing(
            f"{asking} asks for packages", service=service, hint=there(typed_at or service, locking(folder))
        )
    return None


def asks(folder: Path) -> str:
    """The file that asks for packages; '' where none does: then Python alone is the environment."""
    for name in ("requirements.in", "requirements.txt"):
        path = folder / name
        if path.is_file() and (name not in LOCKS or not fixed_by_hash(path)) and [*requirements(path)]:
            return name
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return ""
    return "pyproject.toml" if project.get("dependencies") else ""


def refuse_loose(service: str, lock: Path, typed_at: str = "") -> None:
    """Raise EnvironmentFailed when a lock leaves anything open, or is one for another `pyproject.toml`."""
    hint = there(typed_at or service, relocking(lock))
    try:
        loose = LOOSE[lock.name](lock)
        other = disagreement(lock) if lock.name == "uv.lock" else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvironmentFailed(f"{lock.name} cannot be read: {error}", service=service, hint=hint) from None
    if loose:
        cause = f"{lock.name} does not fix by hash what is installed: {', '.join(loose)}"
        raise EnvironmentFailed(cause, service=service, hint=hint)
    if other:
        cause = f"uv.lock was made for another pyproject.toml: {', '.join(sorted(other))}"
        raise EnvironmentFailed(cause, service=service, hint=hint)


# ------------------------------------------------------------------------------------------------ the formats


def requirements(path: Path) -> Iterator[str]:
    """The logical lines of a requirements file: comments dropped, continued lines joined."""
    text = COMMENT.sub("", path.read_text(encoding="utf-8", errors="replace")).replace("\\\n", " ")
    yield from (line.strip() for line in text.splitlines() if line.strip())


def fixed_by_hash(path: Path) -> bool:
    """Whether a requirements file names something and all that it names has a hash."""
    lines = [*requirements(path)]
    return any("--hash=" in line for line in lines) and not loose_requirements(path)


def loose_requirements(path: Path) -> list[str]:
    """What a requirements file leaves open: lines without a hash, and what stands in other files."""
    return [
        line
        for line in requirements(path)
        if ELSEWHERE.match(line) or (not line.startswith("-") and "--hash=" not in line)
    ]


def loose_uv(path: Path) -> list[str]:
    """What a `uv.lock` leaves open among all that the project leads to: folders, and files without a hash."""
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in tomllib.loads(path.read_text(encoding="utf-8")).get("package", []):
        packages.setdefault(normal(package["name"]), []).append(package)
    own = normal(project_of(path)["name"])
    todo, seen, loose = [own], {own}, []
    while todo:
        for package in packages.get(todo.pop(), []):
            name = normal(package["name"])
            if name != own and not fixed(package):
                loose.append(name)
            extras = package.get("optional-dependencies", {}).values()
            for each in (package.get("dependencies", []), *extras):
                new = {normal(dependency["name"]) for dependency in each} - seen
                todo += sorted(new)
                seen |= new
    return sorted({*loose})


def fixed(package: dict[str, Any]) -> bool:
    """Whether an entry of a `uv.lock` can only ever be one content."""
    source = package["source"]
    if "git" in source:
        return "#" in source["git"]
    files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
    return bool(files) and all(file.get("hash") for file in files)


def loose_pylock(path: Path) -> list[str]:
    """What a `pylock.toml` leaves open: folders, and files without a hash."""
    loose = []
    for package in tomllib.loads(path.read_text(encoding="utf-8")).get("packages", []):
        files = [*package.get("wheels", ()), *(package[kind] for kind in ("sdist", "archive") if kind in package)]
        known = package.get("vcs", {}).get("commit-id") or (files and all(file.get("hashes") for file in files))
        if not known:
            loose.append(normal(package["name"]))
    return sorted({*loose})


LOOSE = {
    "uv.lock": loose_uv,
    "pylock.toml": loose_pylock,
    "requirements.lock": loose_requirements,
    "requirements.txt": loose_requirements,
}


def disagreement(lock: Path) -> set[str]:
    """The packages that only one of `uv.lock` and the `pyproject.toml` beside it asks for (uv does not look)."""
    project = project_of(lock)
    asked = {normal(found[1]) for line in project.get("dependencies", []) if (found := NAME.match(line))}
    for package in tomllib.loads(lock.read_text(encoding="utf-8")).get("package", []):
        if normal(package["name"]) == normal(project["name"]):
            return asked ^ {normal(dependency["name"]) for dependency in package.get("dependencies", [])}
    return set()


def unlocked(lock: Path) -> list[str]:
    """What the `requirements.in` beside a lock asks for that is not in it, or in another version; lines for some
    machines only, and what stands in other files, are left out.
    """
    path = lock.parent / "requirements.in"
    if not path.is_file() or LOOSE[lock.name] is not loose_requirements:
        return []
    held = {normal(found[1]): exactly(line) for line in requirements(lock) if (found := NAME.match(line))}
    lines = [line for line in requirements(path) if not (line.startswith("-") or ";" in line or ADDRESS.match(line))]
    asked = {normal(found[1]): (line, exactly(line)) for line in lines if (found := NAME.match(line))}
    return [line for name, (line, version) in asked.items() if held.get(name, "-") != (version or held.get(name))]


def exactly(line: str) -> str:
    """The one version that a requirement asks for, without zeros at its end; '' for one that leaves a choice."""
    found = EXACT.match(line)
    return re.sub(r"(\.0)+$", "", found[1]) if found else ""


def project_of(lock: Path) -> dict[str, Any]:
    """The project that a `uv.lock` is for; raises ValueError when none with a name is beside it."""
    path = lock.parent / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {}) if path.is_file() else {}
    if "name" not in project:
        raise ValueError("beside it is no pyproject.toml with a [project] that has a name")
    return dict(project)


def normal(name: str) -> str:
    """A package's name in its one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


# ------------------------------------------------------------------------------------------------ commands


def locking(folder: Path) -> str:
    """The command that locks what a folder asks for and has no lock of."""
    asking = asks(folder)
    return f"{typed()} lock" if asking == "pyproject.toml" else compiling(asking or "requirements.in")


def relocking(lock: Path, upgraded: str = "") -> str:
    """The command that makes a lock anew, with another version of one package."""
    words = f" --upgrade-package {upgraded}" if upgraded else ""
    if lock.name == "uv.lock":
        return f"{typed()} lock{words}"
    asking = asks(lock.parent)
    return compiling("requirements.in" if asking in ("", lock.name) else asking, lock.name, words)


def compiling(asking: str = "requirements.in", lock: str = "requirements.lock", words: str = "") -> str:
    """The command that locks what a file asks for, as it can be typed in its folder here."""
    hashes = "" if lock == "pylock.toml" else " --generate-hashes"  # which always has them
    return f"{typed()} pip compile{hashes}{words} {asking} -o {lock}"


def there(folder: str, command: str) -> str:
    """A command that is typed from the top of the repository and run in a folder."""
    return f"(cd {shlex.quote(folder)} && {command})"


def program() -> str:
    """The uv that was installed with Branchline, else the one on the path."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or "uv"


def typed() -> str:
    """uv as it can be typed here: its name, or where it lies when it is not on the path."""
    return "uv" if shutil.which("uv") else shlex.quote(program())
