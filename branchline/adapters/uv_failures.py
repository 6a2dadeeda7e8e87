"""This file reads what uv says when it fails: the cause in one line with the package named, and whose turn it is.

uv tells a story in several lines, for people who typed its command. Ours is read by somebody who pushed a branch: each
rule is a pattern of uv's words, the line that we say instead, and the cure. What no rule knows is joined into one line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Cure(Enum):
    """What helps: another lock, another version of the package in it, or the same once more with the network."""

    RELOCK = "relock"
    UPGRADE = "upgrade"
    AGAIN = "again"
    WHEEL = "wheel"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why uv failed: `cause` in one line, the `package` it is about ('' when it names none), and the cure."""

    cause: str
    cure: Cure
    package: str = ""


PACKAGE = r"`(?P<package>[^`\s]+)`"
DOWNLOAD = rf"Failed to download {PACKAGE}"
RULES = (
    (rf"Hash mismatch for {PACKAGE}.*?Expected:\s+(?P<expected>\S+).*?Computed:\s+(?P<found>\S+)", Cure.UPGRADE,
     "{package} is not the file that was locked: {found} in place of {expected}"),
    (rf'{PACKAGE} is yanked(?: \(reason: "(?P<reason>.*?)"\))?', Cure.UPGRADE,
     "{package} was yanked by those who published it: {reason}"),
    (rf"{DOWNLOAD}\n[^`]*404", Cure.UPGRADE, "the index has the file of {package} no more"),
    (rf"{DOWNLOAD}\n.*Network connectivity is disabled", Cure.AGAIN,
     "{package} is not in uv's cache, and the network is switched off"),
    (r"Because (?P<package>\S+) was not found in the cache", Cure.AGAIN,
     "{package} is not in uv's cache, and the network is switched off"),
    (r"Because (?P<package>\S+) was not found in the package registry", Cure.UPGRADE, "the index has no {package}"),
    (r"there is no version of (?P<package>\S+?),? ", Cure.UPGRADE, "the index has no {package}"),
    (rf"{DOWNLOAD}\n\s*cause: Failed to fetch: (?P<url>\S+)(?:\n\s*cause: (?P<reason>.*))+", Cure.AGAIN,
     "{package} cannot be fetched from {url}: {reason}"),
    (r"Failed to fetch: (?P<url>\S+/(?P<package>[^/\s]+)/?)(?:\n\s*cause: (?P<reason>.*))+", Cure.AGAIN,
     "{package} cannot be fetched from {url}: {reason}"),
    (r"Because (?P<reason>(?P<package>\S+) has no (?:wheels?|source|usable) .*?) and you require", Cure.UPGRADE,
     "{reason}"),
    (r"Because (?P<reason>.*?),? we can conclude", Cure.RELOCK, "the lock cannot be met: {reason}"),
    (rf"Failed to build {PACKAGE}", Cure.WHEEL, "{package} has no wheel for this Python, and building it failed"),
)  # fmt: skip
KNOWN = tuple((re.compile(pattern, re.DOTALL if "Hash" in pattern else 0), cure, line) for pattern, cure, line in RULES)


def understood(text: str) -> Failure:
    """What uv means by what it printed."""
    for pattern, cure, line in KNOWN:
        if found := pattern.search(text):
            words = {name: shortened(value or "no reason given") for name, value in found.groupdict().items()}
            return Failure(line.format(**words), cure, words.get("package", "").partition("==")[0])
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["uv said nothing"]
    told = [line.partition(": ")[2] for line in lines if line.startswith(("error:", "cause:"))]
    return Failure(": ".join(told[:3]) or lines[-1], Cure.RELOCK)


def yanked(text: str) -> bool:
    """Whether uv installed something that it warned of: a version that was taken back."""
    return bool(re.search(rf"{PACKAGE} is yanked", text))


def shortened(word: str) -> str:
    """A digest as far as people compare it."""
    return re.sub(r"(sha\d+:[0-9a-f]{12})[0-9a-f]+", r"\1", word)
