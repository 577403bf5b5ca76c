"""rliable says the same, where it is installed.

It needs pandas below 3 and brings arch and statsmodels, so that no extra of ours has it: the weekly workflow installs
it and runs this file. Its values on fixed data are oracles of `test_tasks`, which always runs.
"""

from __future__ import annotations

import numpy as np
import pytest
from test_tasks import FIRST, SECOND

from lossatlas.statistics.tasks import aggregate, iqm, probability_of_improvement

pytest.importorskip(
    "rliable", reason="rliable is not installed: the weekly workflow compares with it"
)


def test_the_interquartile_mean_and_its_interval_are_rliables():
    from rliable import library, metrics

    def theirs(scores):
        return np.array([metrics.aggregate_iqm(scores)])

    point, interval = library.get_interval_estimates(
        {"x": FIRST, "y": SECOND}, theirs, reps=4000, random_state=np.random.RandomState(0)
    )
    for name, table in (("x", FIRST), ("y", SECOND)):
        got = aggregate({name: table}, widen=False, draws=4000)[name]
        assert got.estimate == pytest.approx(point[name][0])
        assert (got.low, got.high) == pytest.approx(tuple(interval[name][:, 0]), abs=0.006)
    rng = np.random.default_rng(0)
    for runs, tasks in ((3, 1), (5, 7), (10, 4)):
        scores = rng.normal(size=(runs, tasks))
        assert iqm(scores) == pytest.approx(metrics.aggregate_iqm(scores))


def test_the_probability_of_improvement_is_rliables():
    from rliable import library, metrics

    rng = np.random.default_rng(1)
    for ties in (False, True):
        x, y = rng.normal(size=(8, 6)), rng.normal(0.3, 1, size=(9, 6))
        if ties:
            x, y = np.round(x), np.round(y)
        got = probability_of_improvement(x, y, widen=False, draws=4000)
        assert got.estimate == pytest.approx(metrics.probability_of_improvement(x, y))
        _, interval = library.get_interval_estimates(
            {"x": (x, y)},
            lambda a, b: np.array([metrics.probability_of_improvement(a, b)]),
            reps=1000,
            random_state=np.random.RandomState(0),
        )
        assert (got.low, got.high) == pytest.approx(tuple(interval["x"][:, 0]), abs=0.02)
