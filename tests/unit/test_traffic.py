"""This file tests the split: the hash as the gateway computes it, and tables that move nobody who need not move.

Requirements: I4 (shares are whole, never negative, and sum to 100), I26 (a unit keeps its arm within a table), 1.35.
"""

from __future__ import annotations

import pytest

from branchline.core.traffic import (
    BUCKETS,
    Table,
    arm_at,
    assigned,
    bucket,
    reallocate,
    whole,
    xxh64,
)


# Vectors of the reference implementation (python-xxhash): none, one and several blocks, with and without a tail.
@pytest.mark.parametrize(
    ("data", "seed", "digest"),
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"abc", 2**64 - 1, 0x28306E589CC02176),
        (b"exp-7:user-1234567890", 0, 0x1849CF0F37195944),
        (b"0123456789abcdef0123456789abcdef", 0, 0x642A94958E71E6C5),
        (b"0123456789abcdef0123456789abcdef0123456", 0, 0xE97F503D26863ECD),
        (bytes(range(100)), 0, 0x6AC1E58032166597),
        ("s:żółć".encode(), 0, 0xB916370EA76CE3B7),
    ],
)
def test_xxh64_equals_the_reference(data: bytes, seed: int, digest: int) -> None:
    assert xxh64(data, seed) == digest


def test_a_bucket_is_the_salted_hash_modulo_the_table() -> None:
    assert bucket("user-1234567890", "exp-7") == 0x1849CF0F37195944 % BUCKETS


def test_two_salts_draw_apart_1_35() -> None:
    """Without a salt each experiment would give its challenger to the same people."""
    units = [f"u{n}" for n in range(2000)]
    both = sum(bucket(unit, "exp-1") < 1000 and bucket(unit, "exp-2") < 1000 for unit in units)
    assert both < 50  # independent draws meet for about 20 of 2000, equal ones for about 200


def test_a_unit_of_odd_bytes_has_a_bucket() -> None:
    unit = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert bucket(unit, "s") == xxh64(b"s:\xff\xfe") % BUCKETS


def test_assignment_follows_the_segments_in_order() -> None:
    table = (("alex", 1000), ("incumbent", 9000))
    assert [arm_at(table, place) for place in (0, 999, 1000, 9999)] == ["alex", "alex", "incumbent", "incumbent"]
    for unit in ("a", "b", "c", "d"):
        assert assigned(table, unit, "s") == ("alex" if bucket(unit, "s") < 1000 else "incumbent")


def test_a_bucket_beyond_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no bucket 10000"):
        arm_at(whole("incumbent"), BUCKETS)


def test_a_ramp_grows_in_place_and_a_second_challenger_moves_nobody_of_the_first() -> None:
    table = reallocate(whole("incumbent"), {"incumbent": 90, "alex": 10})
    assert table == (("alex", 1000), ("incumbent", 9000))
    table = reallocate(table, {"incumbent": 80, "alex": 10, "sam": 10})
    assert table == (("alex", 1000), ("sam", 1000), ("incumbent", 8000))
    table = reallocate(table, {"incumbent": 70, "alex": 20, "sam": 10})
    assert table == (("alex", 1000), ("sam", 1000), ("alex", 1000), ("incumbent", 7000))
    table = reallocate(table, {"incumbent": 90, "sam": 10})
    assert table == (("incumbent", 1000), ("sam", 1000), ("incumbent", 8000))
    assert reallocate(table, {"sam": 100}) == whole("sam")


def test_a_successor_inherits_a_whole_segment() -> None:
    table = (("alex", 1000), ("incumbent", 9000))
    assert reallocate(table, {"incumbent": 90, "sam": 10}) == (("sam", 1000), ("incumbent", 9000))


def test_an_arm_grows_beside_itself_and_then_by_whole_segments() -> None:
    """Each way keeps the table short: no new segment where an old one can be moved or renamed."""
    table: Table = (("incumbent", 4000), ("sam", 1000), ("incumbent", 4000), ("alex", 1000))
    grown = (("incumbent", 4000), ("sam", 1000), ("incumbent", 3000), ("alex", 2000))
    assert reallocate(table, {"incumbent": 70, "sam": 10, "alex": 20}) == grown
    table = (("incumbent", 9000), ("alex", 1000))
    assert reallocate(table, {"incumbent": 80, "sam": 20}) == (("incumbent", 8000), ("sam", 2000))


def test_new_arms_enter_by_name() -> None:
    """The order of a set differs between processes; a table must not."""
    table = reallocate(whole("z"), {"z": 60, "e": 8, "d": 8, "c": 8, "b": 8, "a": 8})
    assert [arm for arm, _ in table] == ["a", "b", "c", "d", "e", "z"]


def test_an_arm_with_nothing_leaves_the_table() -> None:
    assert reallocate((("alex", 1000), ("incumbent", 9000)), {"alex": 0, "incumbent": 100}) == whole("incumbent")


@pytest.mark.parametrize("wrong", [{"a": 99}, {"a": 101, "b": -1}, {}, {"a": 60, "b": 41}])
def test_shares_that_do_not_add_up_are_refused_I4(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="sum to 100"):
        reallocate(whole("a"), wrong)


@pytest.mark.parametrize("wrong", [(("a", 9999),), (("a", 10_001), ("b", -1)), (("a", 10_000), ("b", 0)), ()])
def test_a_table_that_does_not_add_up_is_refused_I4(wrong: Table) -> None:
    with pytest.raises(ValueError, match="10000 buckets"):
        reallocate(wrong, {"a": 100})


def test_a_table_stays_short_over_many_changes() -> None:
    """Segments are what the gateway renders; a ramp up and down, again and again, must not shred the table."""
    table = whole("incumbent")
    for n in range(200):
        a, b = 5 + n * 7 % 40, 5 + n * 11 % 40
        table = reallocate(table, {"incumbent": 100 - a - b, "alex": a, "sam": b})
        assert len(table) <= 24
