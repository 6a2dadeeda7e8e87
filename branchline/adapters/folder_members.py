"""This file says what an artifact consists of: the walk over what is put, and the manifest it makes.

The manifest is canonical JSON, {"artifact": 2, "members": [{"path", "size", "chunks", "executable"} |
{"path", "folder": true}]}, sorted by path; `chunks` are the digests of the file's chunks, one after another in hex; a
lone file has the path ''. Its SHA-256 is the artifact's id. Rules: a name is a label, never absolute, never `..`; there
are plain files and empty folders, no links, no devices (F39); whatever is read from a manifest is checked first.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from branchline.errors import ArtifactBroken, UnsafeArtifact

Member = dict[str, Any]
DIGEST = 32


def members(path: Path) -> Iterator[tuple[Member, str]]:
    """What is to be kept and where it lies, sorted by name: files, and folders that are empty."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        raise UnsafeArtifact("there is nothing", path=path) from error
    if stat.S_ISDIR(mode):
        yield from sorted(_walk(str(path), ""), key=lambda found: str(found[0]["path"]))
    else:
        yield _file(mode, str(path), ""), str(path)


def _walk(folder: str, prefix: str) -> Iterator[tuple[Member, str]]:
    empty = True
    with closing(os.scandir(folder)) as entries:
        for entry in entries:
            empty, label = False, prefix + entry.name
            if not is_label(label):
                raise UnsafeArtifact("its name is not UTF-8", path=entry.path)
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                yield from _walk(entry.path, label + "/")
            else:
                yield _file(mode, entry.path, label), entry.path
    if empty and prefix:
        yield {"path": prefix[:-1], "folder": True}, folder


def _file(mode: int, path: str, label: str) -> Member:
    if not stat.S_ISREG(mode):
        raise UnsafeArtifact("it is a link" if stat.S_ISLNK(mode) else "it is no plain file", path=path)
    return {"path": label, "executable": bool(mode & stat.S_IXUSR)}


def is_label(label: str) -> bool:
    """Whether a name stays below the folder it is put into, on every machine."""
    try:
        label.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in label and not {"", ".", ".."} & set(label.split("/"))


def written(found: list[Member]) -> tuple[str, bytes]:
    """The artifact's id and the text of its manifest."""
    document = {"artifact": 2, "members": found}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return hashlib.sha256(text).hexdigest(), text


def read(artifact: str, text: bytes) -> list[Member]:
    """The members of a manifest that is what its name promises, and names no place outside of it."""
    if hashlib.sha256(text).hexdigest() != artifact:
        raise ArtifactBroken("its manifest was changed", digest=artifact)
    found: list[Member] = json.loads(text)["members"]
    for each in found:
        if not is_label(each["path"]) and not (each["path"] == "" and len(found) == 1):
            raise ArtifactBroken(f"it names {each['path']!r}, which leads out of it", digest=artifact)
    return found


def digests(member: Member) -> Iterator[bytes]:
    """The digests of a member's chunks, in order."""
    packed = bytes.fromhex(member.get("chunks", ""))
    return (packed[place : place + DIGEST] for place in range(0, len(packed), DIGEST))


def is_id(text: str) -> bool:
    """Whether this can be an artifact's id."""
    return len(text) == 2 * DIGEST and set(text) <= set("0123456789abcdef")
