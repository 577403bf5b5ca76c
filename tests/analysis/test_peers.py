"""rliable, autorank and scikit-posthocs say the same, where they are installed.

They bring some forty packages for a few numbers, so that no extra of ours has them; to compare:
``pip install rliable autorank scikit-posthocs "pandas<3"`` into an environment with this package. Their values on fixed
data are oracles of `test_ranking`, which always runs.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_ranking import FIRST, SECOND, TASKS

from lossatlas.analysis.ranking import (
    aggregate,
    critical_difference,
    iqm,
    probability_of_improvement,
)

WHY = "is not installed: the comparison with it is made in an environment that has it"


def peer(name):
    """The package, or a skip that says so."""
    return pytest.importorskip(name, reason=f"{name} {WHY}")


def test_the_interquartile_mean_and_its_interval_are_rliables():
    peer("rliable")
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
    peer("rliable")
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


def test_ranks_and_critical_distance_are_autoranks():
    autorank = peer("autorank")
    theirs = autorank.autorank(pd.DataFrame(TASKS), force_mode="nonparametric")
    got = critical_difference(TASKS, method="nemenyi")
    assert got.distance == pytest.approx(theirs.cd, abs=1e-4)
    assert got.p == pytest.approx(theirs.pvalue)
    ranks = theirs.rankdf.meanrank
    assert dict(zip(got.losses, got.mean_ranks, strict=True)) == pytest.approx(ranks.to_dict())


def test_nemenyis_and_holms_p_values_are_those_of_scikit_posthocs():
    posthocs = peer("scikit_posthocs")
    rng = np.random.default_rng(2)
    # values without ties: there its signed ranks are exact too
    scores = {name: np.array(v) + rng.uniform(-0.004, 0.004, 12) for name, v in TASKS.items()}
    table = np.stack(list(scores.values()), axis=1)
    nemenyi = posthocs.posthoc_nemenyi_friedman(table).to_numpy()
    flat = pd.DataFrame(scores).melt(var_name="loss", value_name="dice")
    holm = posthocs.posthoc_wilcoxon(flat, "dice", "loss", p_adjust="holm")
    got = {m: critical_difference(scores, method=m) for m in ("nemenyi", "wilcoxon-holm")}
    for i, j in itertools.combinations(range(5), 2):
        one, two = list(scores)[i], list(scores)[j]
        for method, expected in (("nemenyi", nemenyi[i, j]), ("wilcoxon-holm", holm.loc[one, two])):
            places = [got[method].losses.index(name) for name in (one, two)]
            assert got[method].p_values[tuple(places)] == pytest.approx(expected, abs=1e-6)


def test_friedmans_p_value_without_the_packages_is_scipys():
    got = critical_difference(TASKS)
    assert got.p == pytest.approx(stats.friedmanchisquare(*TASKS.values()).pvalue)
