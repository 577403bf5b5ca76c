"""Rank correlation against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lossatlas.statistics.ranks import tau_b


def test_tau_b_is_scipys_with_and_without_ties() -> None:
    rng = np.random.default_rng(0)
    for ties in (False, True):
        x, y = rng.normal(size=(2, 20))
        if ties:
            x, y = np.round(x), np.round(y)
        assert tau_b(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert np.isnan(tau_b([1, 1, 1], [1, 2, 3]))
