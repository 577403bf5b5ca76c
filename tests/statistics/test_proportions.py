"""The exact interval of a share, by its definition."""

from __future__ import annotations

import pytest
from scipy import stats

from lossatlas.statistics.proportions import clopper_pearson


@pytest.mark.parametrize(("successes", "trials"), [(3, 8), (1, 5), (7, 30)])
def test_the_ends_are_the_shares_that_one_sided_tests_just_reject(successes, trials):
    got = clopper_pearson(successes, trials)
    assert got.estimate == successes / trials
    assert stats.binom.sf(successes - 1, trials, got.low) == pytest.approx(0.025)
    assert stats.binom.cdf(successes, trials, got.high) == pytest.approx(0.025)


def test_none_and_all_of_the_runs_have_a_closed_form():
    none, every = clopper_pearson(0, 8), clopper_pearson(8, 8)
    assert (none.low, none.high) == pytest.approx((0, 1 - 0.025 ** (1 / 8)))
    assert (every.low, every.high) == pytest.approx((0.025 ** (1 / 8), 1))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_it_covers_at_least_its_level_for_every_share(share):
    held = sum(
        stats.binom.pmf(k, 8, share)
        for k in range(9)
        if (each := clopper_pearson(k, 8)).low <= share <= each.high
    )
    assert held >= 0.95


def test_impossible_shares_are_refused():
    for arguments, words in [((9, 8), "got 9 of 8"), ((-1, 8), "got -1"), ((0, 0), "trials ≥ 1")]:
        with pytest.raises(ValueError, match=words):
            clopper_pearson(*arguments)
    with pytest.raises(ValueError, match="level between 0 and 1, got 95"):
        clopper_pearson(1, 8, level=95)
