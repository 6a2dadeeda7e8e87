"""This file shows what holds of the split for any sequence of shares.

Requirements: I4 (shares are whole, never negative, and sum to 100), I26 (a unit keeps its arm within a table).
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from branchline.core.traffic import PER_PERCENT, Table, reallocate, shares_of, whole

ARMS = ("alex", "incumbent", "kim", "sam")


@st.composite
def shares(draw: st.DrawFn) -> dict[str, int]:
    """Whole percents of one to four arms, none with nothing."""
    arms = draw(st.lists(st.sampled_from(ARMS), min_size=1, unique=True))
    cuts = draw(st.lists(st.integers(1, 99), min_size=len(arms) - 1, max_size=len(arms) - 1, unique=True))
    edges = [0, *sorted(cuts), 100]
    return {arm: high - low for arm, (low, high) in zip(arms, pairwise(edges), strict=True)}


def cells(table: Table) -> list[str]:
    """The arm of every hundred buckets; whole percents never cut one."""
    assert all(buckets % PER_PERCENT == 0 for _, buckets in table)
    return [arm for arm, buckets in table for _ in range(buckets // PER_PERCENT)]


@settings(max_examples=50)
@given(st.lists(shares(), min_size=1, max_size=8))
def test_any_sequence_of_shares_moves_only_who_must_move_I4_I26(sequence: list[dict[str, int]]) -> None:
    table = whole("incumbent")
    for wanted in sequence:
        before, old = cells(table), shares_of(table)
        table = reallocate(table, wanted)
        after, new = cells(table), shares_of(table)
        assert reallocate(table, wanted) == table, "unchanged shares change nothing"
        assert new == {arm: share * PER_PERCENT for arm, share in wanted.items()}
        assert all(buckets > 0 for _, buckets in table)
        assert all(one[0] != two[0] for one, two in pairwise(table)), "neighbours of one arm are one segment"
        growth = sum(max(new[arm] - old.get(arm, 0), 0) for arm in new)
        moved = [(was, now) for was, now in zip(before, after, strict=True) if was != now]
        assert len(moved) * PER_PERCENT == growth, "only as many buckets move as must"
        for was, now in moved:
            assert new.get(was, 0) < old[was], "who gives shrinks"
            assert new[now] > old.get(now, 0), "who takes grows"


@settings(max_examples=25)
@given(shares(), shares())
def test_the_order_in_which_shares_are_named_is_nothing(one: dict[str, int], two: dict[str, int]) -> None:
    table = reallocate(whole("incumbent"), one)
    assert reallocate(table, two) == reallocate(table, dict(reversed(two.items())))
