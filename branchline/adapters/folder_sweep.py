"""This file removes from a store what nobody needs: artifacts that are neither wanted nor young, and then packs.

Rules. Needed are the artifacts that are in `keep`, and those whose pack is young (F49); of a pack that is young nothing
goes. First, with the store held alone, the index forgets what is not needed: from then on no put refers to it. Packs
without anything needed go at once; those with too little of it, and many small ones, are written again as one, a few at
a time, so that a put waits for moments. Who is killed in between has lost nothing, and leaves work for the next sweep.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from branchline.adapters.folder_index import Index
from branchline.adapters.folder_members import Member, digests
from branchline.adapters.folder_packs import SUFFIX, BrokenPack, Draft, named, table
from branchline.errors import ArtifactBroken
from branchline.ports import Swept

WASTE = 0.25  # a pack of which more than this is not needed is written again
SMALL, CROWD = 1 << 20, 64  # and small packs are, when there are as many


@dataclass(frozen=True, slots=True)
class Store:
    """What is swept: `held` has it alone for a while, `members` reads a manifest, a pack has at most `full` bytes."""

    index: Index
    packs: Path
    parts: Path
    full: int
    held: Callable[[bool], AbstractContextManager[None]]
    members: Callable[[str], list[Member]]


def sweep(store: Store, keep: Collection[str], older_than: float, dry_run: bool) -> Swept:
    """Remove what is not needed; returns what went, or would go: artifacts, and bytes of the disk."""
    index, packs = store.index, store.packs
    with store.held(True):
        for part in store.parts.iterdir():  # who is alone knows that nobody writes
            part.unlink(missing_ok=True)
        index.sync()
        sizes, young = _weighed(packs, older_than)
        gone = _mark(store, keep, young)
        needed = index.weighed()
        old = {name: size for name, size in sizes.items() if name not in young and name in needed}
        dead = [name for name in old if not needed[name]]
        thin = _thin(old, needed)
        freed = sum(old[name] for name in dead)
        if not dry_run:
            for name in dead:  # first, for where the disk is full the index cannot be written before there is room
                _path(packs, name).unlink(missing_ok=True)
            index.prune(list(old))
            index.forget(dead)
        index.unmark()
    for group in _groups(thin, needed, store.full):
        if dry_run:
            freed += sum(old[name] - needed[name] for name in group)
            continue
        with store.held(True):
            freed += _written_again(store, group)
    return Swept(gone, freed)


def _weighed(packs: Path, older_than: float) -> tuple[dict[str, int], set[str]]:
    """The sizes of all packs, and the young ones among them; a clock that was set back makes none of them old."""
    limit, sizes, young = time.time() - older_than, dict[str, int](), set[str]()
    for path in packs.glob(f"*{SUFFIX}"):
        found = path.stat()
        sizes[path.stem] = found.st_size
        if found.st_mtime > limit:
            young.add(path.stem)
    return sizes, young


def _mark(store: Store, keep: Collection[str], young: Collection[str]) -> int:
    """Mark what is needed; returns how many artifacts are not."""
    gone, wanted = 0, frozenset(keep)
    for digest, place in store.index.manifests():
        artifact = digest.hex()
        if artifact not in wanted and place.pack not in young:
            gone += 1
            continue
        try:
            found = store.members(artifact)
        except ArtifactBroken:  # quarantined by that; it will be put again
            continue
        store.index.keep([digest, *(one for each in found for one in digests(each))])
    return gone


def _thin(old: dict[str, int], needed: dict[str, int]) -> list[str]:
    """The packs that are to be written again."""
    some = [name for name in old if needed[name]]
    small = [name for name in some if old[name] < SMALL]
    thin = {name for name in some if needed[name] < old[name] * (1 - WASTE)}
    return sorted(thin.union(small if len(small) >= CROWD else ()))


def _groups(names: list[str], needed: dict[str, int], full: int) -> Iterator[list[str]]:
    """Packs that become one."""
    group, size = list[str](), 0
    for name in names:
        if group and size + needed[name] > full:
            yield group
            group, size = [], 0
        group.append(name)
        size += needed[name]
    if group:
        yield group


def _written_again(store: Store, group: list[str]) -> int:
    """Write what is needed of these packs as one; returns the bytes that this frees."""
    index, packs = store.index, store.packs
    group = [name for name in group if _path(packs, name).exists()]
    before, newest = sum(_path(packs, name).stat().st_size for name in group), 0.0
    draft = Draft(store.parts)
    try:
        for name in group:
            newest = max(newest, _path(packs, name).stat().st_mtime)
            _copy(index, _path(packs, name), draft)
        if draft.objects:
            fresh = draft.seal(packs)
            os.utime(_path(packs, fresh), (newest, newest))
            index.add(fresh, draft.objects, written=True, again=True)
            before -= _path(packs, fresh).stat().st_size if fresh not in group else 0
            group = [name for name in group if name != fresh]
    finally:
        draft.drop()
    index.forget(group)
    for name in group:
        _path(packs, name).unlink(missing_ok=True)
    return before


def _copy(index: Index, path: Path, draft: Draft) -> None:
    """Append what the index finds in this pack, and nowhere else; what is damaged is quarantined."""
    try:
        objects = table(path)
    except BrokenPack:
        return
    places = index.find([each.digest for each in objects])
    with path.open("rb", buffering=0) as file:
        for each in objects:
            place = places.get(each.digest)
            if place is None or place.pack != path.stem:
                continue
            content = os.pread(file.fileno(), each.length, each.start)
            if named(content, each.manifest) == each.digest:
                draft.add(each.digest, content, each.manifest)
            else:
                index.quarantine(each.digest, path.stem)


def _path(packs: Path, name: str) -> Path:
    return packs / f"{name}{SUFFIX}"
