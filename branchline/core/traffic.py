"""This file is the split: 10,000 buckets, which arm holds which, and which bucket a unit falls into.

Rules. A table is run-length encoded: segments of (arm, buckets) in order, as the gateway renders them, for its
weighted clusters own consecutive ranges in list order. A unit's bucket is xxh64 of "SALT:UNIT", seed 0, modulo 10,000,
exactly as the gateway computes it, so assignment is known without asking it. When shares change, only as many buckets
move as must: an arm that grows keeps every bucket it has and takes new ones from arms that shrink, and from them
alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

BUCKETS = 10_000
PER_PERCENT = BUCKETS // 100

Table = tuple[tuple[str, int], ...]

_MASK = (1 << 64) - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def whole(arm: str) -> Table:
    """The table of one arm that holds everything."""
    return ((arm, BUCKETS),)


def shares_of(table: Table) -> dict[str, int]:
    """The buckets each arm holds, in the order in which the arms first stand in the table."""
    held: dict[str, int] = {}
    for arm, buckets in table:
        held[arm] = held.get(arm, 0) + buckets
    return held


def reallocate(table: Table, shares: Mapping[str, int]) -> Table:
    """The table that gives each arm its percent of the units and moves nobody who need not move.

    `shares` are whole percents that sum to 100; an arm with none, or that is not named, loses all it has. The same
    table and shares give the same table always. Raises ValueError for shares or a table that do not add up.
    """
    held = shares_of(table)
    if sum(held.values()) != BUCKETS or any(buckets < 1 for _, buckets in table):
        raise ValueError(f"a table has {BUCKETS} buckets in segments of at least one")
    if sum(shares.values()) != 100 or any(share < 0 or share != int(share) for share in shares.values()):
        raise ValueError(f"shares are whole percents that sum to 100, not {dict(shares)}")
    wanted = {arm: int(share) * PER_PERCENT for arm, share in shares.items()}
    arms = [*held, *sorted(wanted.keys() - held.keys())]
    need = {arm: max(wanted.get(arm, 0) - held.get(arm, 0), 0) for arm in arms}
    spare = {arm: max(held.get(arm, 0) - wanted.get(arm, 0), 0) for arm in arms}
    segments = _merged(list(table))
    for arm in arms:
        while need[arm]:
            place, buckets, from_end = _gift(segments, arm, need[arm], spare)
            giver, size = segments[place]
            rest = [(giver, size - buckets)] if size > buckets else []
            segments[place : place + 1] = [*rest, (arm, buckets)] if from_end else [(arm, buckets), *rest]
            segments = _merged(segments)
            need[arm] -= buckets
            spare[giver] -= buckets
    return tuple(segments)


def left_to(table: Table, arms: Collection[str], heir: str) -> Table:
    """The table when only these arms are left: the heir holds what the others held, nobody else is moved."""
    return tuple(_merged([(arm if arm in arms else heir, buckets) for arm, buckets in table]))


def salt_of(experiment: str) -> str:
    """The salt of an experiment: what stands before the dot; behind it stands since when its holder holds."""
    return experiment.partition(".")[0]


def bucket(unit: str, experiment: str) -> int:
    """The bucket of a unit, 0 to 9,999."""
    return xxh64(f"{salt_of(experiment)}:{unit}".encode("utf-8", "surrogateescape")) % BUCKETS


def arm_at(table: Table, place: int) -> str:
    """The arm that holds a bucket. Raises ValueError beyond the table."""
    end = 0
    for arm, buckets in table:
        end += buckets
        if place < end:
            return arm
    raise ValueError(f"the table has no bucket {place}")


def assigned(table: Table, unit: str, experiment: str) -> str:
    """The arm that a unit is assigned to."""
    return arm_at(table, bucket(unit, experiment))


def xxh64(data: bytes, seed: int = 0) -> int:
    """The 64-bit xxHash (Collet, github.com/Cyan4973/xxHash, specification 0.1.1)."""
    end = len(data)
    at = 0
    if end >= 32:
        lanes = [seed + _P1 + _P2 & _MASK, seed + _P2 & _MASK, seed, seed - _P1 & _MASK]
        while at <= end - 32:
            for lane in range(4):
                lanes[lane] = _round(lanes[lane], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        digest = sum(_left(value, by) for value, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for value in lanes:
            digest = ((digest ^ _round(0, value)) * _P1 + _P4) & _MASK
    else:
        digest = seed + _P5 & _MASK
    digest = digest + end & _MASK
    while at <= end - 8:
        digest = (_left(digest ^ _round(0, int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4) & _MASK
        at += 8
    if at <= end - 4:
        digest = (_left(digest ^ int.from_bytes(data[at : at + 4], "little") * _P1 & _MASK, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        digest = _left(digest ^ byte * _P5 & _MASK, 11) * _P1 & _MASK
    digest = (digest ^ digest >> 33) * _P2 & _MASK
    digest = (digest ^ digest >> 29) * _P3 & _MASK
    return digest ^ digest >> 32


def _left(value: int, by: int) -> int:
    return (value << by | value >> 64 - by) & _MASK


def _round(lane: int, word: int) -> int:
    return _left(lane + word * _P2 & _MASK, 31) * _P1 & _MASK


def _merged(segments: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The segments with neighbours of one arm made one."""
    merged: list[tuple[str, int]] = []
    for arm, buckets in segments:
        if merged and merged[-1][0] == arm:
            merged[-1] = (arm, merged[-1][1] + buckets)
        else:
            merged.append((arm, buckets))
    return merged


def _gift(segments: list[tuple[str, int]], arm: str, need: int, spare: Mapping[str, int]) -> tuple[int, int, bool]:
    """Which segment gives to the arm: its place, how many buckets, and whether from its end.

    First a neighbour of the arm (no new segment), then a segment that is given whole, then the front of the largest
    one.
    """
    gifts: list[tuple[tuple[int, int, int], tuple[int, int, bool]]] = []
    for place, (giver, size) in enumerate(segments):
        buckets = min(need, spare[giver], size)
        if buckets:
            before = place > 0 and segments[place - 1][0] == arm
            after = place + 1 < len(segments) and segments[place + 1][0] == arm
            rank = 0 if before or after else 1 if buckets == size else 2
            gifts.append(((rank, -size if rank == 2 else -buckets, place), (place, buckets, after and not before)))
    return min(gifts)[1]
