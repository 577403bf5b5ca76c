"""Shares of runs: how many of n collapsed, say, with an exact interval."""

from __future__ import annotations

from scipy import stats

from lossatlas.statistics.intervals import Interval


def clopper_pearson(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """A share k/n with the interval of Clopper and Pearson (Biometrika 26, 1934).

    The interval holds every share that neither one-sided binomial test of level (1 − `level`)/2 rejects. It
    covers at least `level`, whatever the true share. Runs are taken as independent.

    Parameters
    ----------
    successes, trials
        k and n, 0 ≤ k ≤ n and n ≥ 1.
    level
        Least coverage.

    Returns
    -------
    Interval
        Its `seeds` is n.

    Raises
    ------
    ValueError
        k or n is out of range, or the level is not between 0 and 1.

    Examples
    --------
    None of eight runs: the share may still be 37 %, since 0.63⁸ = 0.025.

    >>> clopper_pearson(0, 8).text()
    '0.000 [0.000, 0.369]'
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"expected 0 ≤ successes ≤ trials and trials ≥ 1, got {successes} of {trials}"
        )
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, got {level}")
    ends = stats.binomtest(int(successes), int(trials)).proportion_ci(level, method="exact")
    return Interval(successes / trials, float(ends.low), float(ends.high), int(trials))
