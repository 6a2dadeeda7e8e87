"""This file tests what is said of a test before it begins: outcomes, days, the effect that would fit, in words.

Requirement: 1.37 (the determination), as far as a person plans it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from branchline.core.planning import Outlook, fewest_units, lasting, number, proportion, rounded_up, told, widest

TEN_PERCENT = Outlook(0.01, 0.3, 1000.0)


def test_the_outcomes_are_those_of_a_fixed_test_and_parts_of_it() -> None:
    assert TEN_PERCENT.fixed == 37_827  # 4σ²(3.2415/Δ)²
    assert (TEN_PERCENT.expected, TEN_PERCENT.without_effect) == (24_588, 16_266)
    assert TEN_PERCENT.at_most == 113_481
    assert replace(TEN_PERCENT, share=0.1).fixed == pytest.approx(TEN_PERCENT.fixed / 0.36, abs=1)
    assert replace(TEN_PERCENT, alpha=0.025).fixed > TEN_PERCENT.fixed < replace(TEN_PERCENT, beta=0.05).fixed


def test_nothing_is_judged_before_its_fewest_units() -> None:
    huge = Outlook(5.0, 1.0, 100.0, share=0.2, fewest=100)
    assert (huge.fixed, huge.least) == (3, 500)
    assert huge.expected == huge.without_effect == huge.at_most == 500


def test_days_are_those_of_the_outcomes_after_the_window() -> None:
    assert replace(TEN_PERCENT, window=2 * 86_400).days(3000) == 5.0


@pytest.mark.parametrize("days", [10.0, 30.0, 365.0])
def test_the_effect_that_fits_does_fit_and_a_smaller_one_does_not(days: float) -> None:
    outlook = Outlook(0.01, 0.5, 54.0, window=3600)
    fits = outlook.fitting(days)
    assert fits is not None
    assert outlook.days(replace(outlook, effect=fits).expected) <= days + 0.02
    assert outlook.days(replace(outlook, effect=0.9 * fits).expected) > days


def test_no_effect_fits_where_the_fewest_units_take_longer() -> None:
    assert Outlook(1.0, 0.5, 54.0).fitting(3) is None
    assert Outlook(1.0, 0.5, 54.0, window=86_400).fitting(0.5) is None


@pytest.mark.parametrize(("exact", "shown"), [(0.0421, 0.043), (0.04, 0.04), (1234.0, 1300.0), (9.91, 10.0)])
def test_a_proposed_effect_is_rounded_up(exact: float, shown: float) -> None:
    assert rounded_up(exact) == shown


def test_without_outcomes_the_bounds_say_how_far_they_spread() -> None:
    assert (widest(None, "binary"), widest((0, 10), "value"), widest(None, "value")) == (0.5, 5, None)


def test_rare_ones_and_heavy_tails_need_more_units() -> None:
    assert fewest_units(100, binary=True, bounded=False, mean=0.01) == 2500
    assert fewest_units(100, binary=True, bounded=False, mean=0.99) == 2500
    assert fewest_units(100, binary=True, bounded=False, mean=0.5) == 100
    assert fewest_units(100, binary=True, bounded=False, mean=None) == 100
    assert fewest_units(100, binary=True, bounded=False, mean=0.0) == 100
    assert fewest_units(100, binary=False, bounded=True, mean=0.01) == 100
    assert fewest_units(100, binary=False, bounded=False, mean=0.01) == 500


def test_a_proportion_has_an_interval() -> None:
    low, high = proportion(5, 100)
    assert (round(low, 4), round(high, 4)) == (0.0215, 0.1118)  # Wilson's own
    assert proportion(0, 100)[0] == 0.0
    assert proportion(100, 100)[1] == 1.0
    assert proportion(5, 100, 0.99)[1] > high


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (38.2, "39 days"),
        (1.0, "1 day"),
        (1.01, "1 day"),
        (0.5, "12 hours"),
        (0.02, "29 minutes"),
        (0.0001, "less than a minute"),
        (3650, "3,650 days"),
    ],
)
def test_a_duration_is_said_in_its_own_size(days: float, said: str) -> None:
    assert lasting(days) == said


def test_numbers_are_said_with_three_digits() -> None:
    assert (number(54.04), number(1_234_567), number(0.5)) == ("54", "1,234,567", "0.5")


def test_one_sentence_says_how_long_and_what_would_take_another_time() -> None:
    few = Outlook(0.03, 0.12, 54.0)
    assert told(few, 14) == "at 54 outcomes a day this takes 9 days; with an MDE of 0.06 it takes 4 days"
    slow = Outlook(0.02, 0.2, 54.0)
    assert told(slow, 14) == "at 54 outcomes a day this takes 51 days; with an MDE of 0.039 it takes 14 days"
    assert told(slow, 3).endswith("no MDE fits into 3 days, for fewer than 200 outcomes are never judged")
