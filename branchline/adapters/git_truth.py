"""This file finds git's truth in the user's settings, and takes over what is needed to reach it.

Rules: pure but for `settings_of`. Settings travel in a file (0600) and never on a command line, for some hold secrets
(I20). Nothing is taken that would change what a commit means or would run at a checkout (F13).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from branchline.adapters.git import Git

Settings = Sequence[tuple[str, str]]

# How to reach the truth, and whose repositories are trusted on this machine.
_TAKEN = re.compile(
    r"(credential|http|https|url|ssh)\..+|core\.(sshcommand|askpass|gitproxy)|safe\.directory|remote\.[^\n]+\.proxy"
)


@dataclass(frozen=True, slots=True)
class Truth:
    """Where git's truth is: `remote` is its name in the user's repository, '' when it is that repository itself."""

    remote: str
    fetch: str
    push: str


def settings_of(git: Git) -> tuple[tuple[str, str], ...]:
    """All settings as git sees them in a repository, in order: lower-case keys with their values."""
    told = git.line("config", "--list", "-z", "--includes")
    pairs = [row.partition("\n") for row in told.split("\0")[:-1]]
    return tuple((key, value if line_end else "true") for key, line_end, value in pairs)


def truth_of(settings: Settings, common: Path, top: Path) -> Truth:
    """The truth of a user's repository: `origin`, else the only remote, else the repository itself."""
    urls = [(key[7:-4], value) for key, value in settings if re.fullmatch(r"remote\.[^\n]+\.url", key) and value]
    remotes = dict(reversed(urls))  # the first address of each
    name = "origin" if "origin" in remotes else next(iter(remotes)) if len(remotes) == 1 else ""
    if not name:
        return Truth("", str(common), str(common))
    pushed = [value for key, value in settings if key == f"remote.{name}.pushurl"]
    return Truth(name, _address(remotes[name], top), _address(pushed[0] if pushed else remotes[name], top))


def taken(settings: Settings) -> str:
    """The settings that the mirror takes over, as a configuration file."""
    return "".join(_section(key, value) for key, value in settings if _TAKEN.fullmatch(key))


def _address(url: str, top: Path) -> str:
    """An address as it is understood from anywhere: a relative path belongs to the user's work tree."""
    if "://" in url or re.match(r"[^/]+:", url) or url.startswith("/"):
        return url
    return str(top / url)


def _section(key: str, value: str) -> str:
    first, _, rest = key.partition(".")
    middle, _, last = rest.rpartition(".")
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    inner = middle.replace("\\", "\\\\").replace('"', '\\"')
    return f'[{first} "{inner}"]\n\t{last} = "{quoted}"\n' if middle else f'[{first}]\n\t{last} = "{quoted}"\n'
