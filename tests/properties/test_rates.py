"""This file shows what holds of percentiles for any counters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from branchline.core.rates import percentile


@given(st.dictionaries(st.tuples(st.floats(0, 1e5), st.floats(0, 1e3)), st.integers(0, 1000)), st.floats(0, 1))
def test_percentiles_grow_and_stay_among_the_bins(times: dict[tuple[float, float], int], share: float) -> None:
    found, most = percentile(times, share), percentile(times, 1.0)
    filled = [place for place, count in times.items() if count]
    assert (found is None) == (not filled)
    if found is not None and most is not None:
        assert min(lower for lower, _ in filled) <= found <= max(lower + width for lower, width in filled)
