"""How often the intervals hold the truth: simulated studies whose truth is known.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py --out results/statistics/coverage.csv --jobs 2

makes every design of `DESIGNS` 2,000 times, so that the standard error of a coverage of 95 % is below half
a point, and writes for every kind of interval how often it held the truth, on which side it missed,
and how wide it was. The rows of designs called "limit" are there to show where an interval fails.
Designs that the file has already are kept, so that an interrupted run goes on where it was. One thread a
process: more would only wait for each other.

A study of two losses is S seeds × N images in G clusters of unequal size. The difference of the
losses at a seed and image is the sum of effects of the seed, the cluster, the image, and of seeds with
clusters and images. `mix` says which of them the spread of the mean difference comes from:

- seeds: nine tenths from the seeds, as in the embedded study on digits
- clusters: eight tenths from what images and clusters have in common over the seeds
- interaction: nine tenths from what a seed's network does on one image and no other
- even: a third from each
- like groups: as clusters, but the images of a group are very much alike

and `shape` how the effects are spread: normal, skewed (gamma with skewness 1), very skewed
(exponential, skewness 2), or normal but for seeds of which one in three, or one in ten, collapses.

The last designs have the sizes of the real tests: 46, 35 and 4 images that stand alone, 233 frames of two
videos, eight images of four children, four sections of one block. Such few groups are not drawn.

Two quantities have counts of pixels in place of numbers: "pooled Dice", objects of lognormal size, found in
part, of a frequent and a rare class; "pooled Dice, mostly empty images", one small object on six images
of a hundred and nothing on the others but now and then a false alarm as large as an object, as in
the study of imbalance at 0.1 % of foreground.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lossatlas.statistics import paired

#: Part of the variance of the mean difference due to seeds, clusters and images, and interaction.
MIXES = {
    "seeds": (0.9, 0.05, 0.05),
    "clusters": (0.1, 0.8, 0.1),
    "interaction": (0.05, 0.05, 0.9),
    "even": (1 / 3, 1 / 3, 1 / 3),
    "like groups": (0.1, 0.8, 0.1),
}
SHAPES = ("normal", "skewed", "very skewed", "one seed in 3 collapses", "one seed in 10 collapses")
#: Part of the images' variance (and of the interaction's) that whole clusters share.
CLUSTERED = 0.7
#: The same for the mix "like groups": images of a group then correlate by 0.14 where 233 come in two groups,
#: by 0.90 where eight come in four. In the studies' records the differences of two losses do so by 0.16
#: to 0.31 (frames of a video) and 0.57 to 0.96 (eyes of a child; the median pair of each study).
ALIKE = 0.95
#: Studies of a design with such groups, over those of another: a coverage near 60 % has a larger error.
MORE = 1.2

#: Quantities whose numbers are counts of pixels.
POOLED, EMPTY = "pooled Dice", "pooled Dice, mostly empty images"

_LEVEL = 0.95
_FAR = (0.01, 0.001)  # small α at which false findings are counted


@dataclass(frozen=True)
class Design:
    """A simulated study: `purpose` is "claim" where the interval should cover 93 to 97 %."""

    purpose: str
    quantity: str
    seeds: int
    images: int
    clusters: int
    mix: str
    shape: str


def _designs() -> Iterator[Design]:
    for clusters, mix in itertools.product((400, 50), itertools.islice(MIXES, 4)):
        yield Design("claim", "difference", 8, 400, clusters, mix, "normal")
    for mix in ("even", "clusters"):
        yield Design("claim", "difference", 8, 400, 20, mix, "normal")
    for mix in ("seeds", "clusters"):
        yield Design("claim", "difference", 8, 400, 50, mix, "skewed")
    for seeds, mix in itertools.product((3, 5), ("seeds", "even", "clusters")):
        yield Design("claim", "difference", seeds, 400, 400, mix, "normal")
    for (seeds, clusters), mix in itertools.product(
        ((8, 400), (8, 50), (5, 400), (3, 400)), ("seeds", "even")
    ):
        yield Design("claim", POOLED, seeds, 400, clusters, mix, "normal")
    for seeds, mix in itertools.product((8, 5, 3), ("seeds", "even")):
        yield Design("claim", EMPTY, seeds, 400, 400, mix, "normal")
    for mix in ("seeds", "even"):
        yield Design("limit", EMPTY, 8, 100, 100, mix, "normal")
    for mix in ("seeds", "clusters"):
        yield Design("limit", "difference", 8, 400, 50, mix, "very skewed")
    for shape in SHAPES[3:]:
        yield Design("limit", "difference", 8, 400, 400, "seeds", shape)
    for clusters, mix in itertools.product((6, 10), ("seeds", "even", "clusters")):
        yield Design("limit", "difference", 8, 200, clusters, mix, "normal")
    # the sizes of the real tests; last, because a design's place is its random seed
    for mix in ("seeds", "even"):
        yield Design("claim", "difference", 8, 46, 46, mix, "normal")
    for images, clusters in ((233, 2), (8, 4), (4, 1)):
        yield Design("limit", "difference", 8, images, clusters, "like groups", "normal")
    for images in (35, 4):
        yield Design("claim", "difference", 8, images, images, "even", "normal")


#: Every design of the simulation.
DESIGNS: tuple[Design, ...] = tuple(_designs())


def effects(rng: np.random.Generator, shape: str, *size: int) -> np.ndarray:
    """Random effects of mean 0 and variance 1."""
    if shape not in ("skewed", "very skewed"):
        return rng.standard_normal(size)
    gamma = {"skewed": 4.0, "very skewed": 1.0}[shape]  # skewness 2/√gamma
    return (rng.gamma(gamma, size=size) - gamma) / np.sqrt(gamma)


def seed_effects(rng: np.random.Generator, shape: str, seeds: int) -> np.ndarray:
    """(S, 1) effects of the seeds, of mean 0 and variance 1; collapses are ten times the other spread."""
    if not shape.endswith("collapses"):
        return effects(rng, shape, seeds, 1)
    chance = 1 / int(shape.split()[3])
    away = 10 * ((rng.random((seeds, 1)) < chance) - chance)
    return (away + rng.standard_normal((seeds, 1))) / np.sqrt(1 + 100 * chance * (1 - chance))


def membership(rng: np.random.Generator, images: int, clusters: int) -> np.ndarray:
    """(N,) cluster of each image: every cluster has one image, the others fall by chance."""
    rest = rng.integers(0, clusters, images - clusters)
    return np.sort(np.concatenate([np.arange(clusters), rest]))


def study(design: Design, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Differences (S, N) whose expectation is 0, and the images' clusters (N,)."""
    groups = membership(rng, design.images, design.clusters)
    by_seed, by_cluster, both = MIXES[design.mix]
    s, g, shape = design.seeds, design.clusters, design.shape
    per_cluster = design.images / g
    alike = ALIKE if design.mix == "like groups" else CLUSTERED

    def of_images(rows: int) -> np.ndarray:  # variance 1 a cluster's mean, about
        shared = np.sqrt(alike) * effects(rng, shape, rows, g)[:, groups]
        own = np.sqrt((1 - alike) * per_cluster) * effects(rng, shape, rows, design.images)
        return shared + own

    return (
        np.sqrt(by_seed * s) * seed_effects(rng, shape, s)
        + np.sqrt(by_cluster * g) * of_images(1)
        + np.sqrt(both * s * g) * of_images(s)
    ), groups


def counted_study(
    design: Design,
    rng: np.random.Generator,
    *,
    seed_effects: np.ndarray | None = None,
    images: int | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Counts (S, N, C, 3) of two losses, and the images' clusters (N,).

    The part of an object that is found depends, through a logistic function, on loss, seed, cluster
    and image. `seed_effects` and `images` replace the design's.
    """
    images = images or design.images
    clusters = round(design.clusters * images / design.images)
    groups = membership(rng, images, clusters)
    make = _mostly_empty if design.quantity == EMPTY else _two_classes
    spread = 1.0 if design.mix == "seeds" else 0.25  # of the seeds
    of_seeds = {
        loss: spread * (rng.standard_normal(design.seeds) if seed_effects is None else seed_effects)
        for loss in ("a", "b")
    }
    return make(rng, of_seeds, groups, clusters), groups


def _two_classes(
    rng: np.random.Generator, of_seeds: Mapping[str, np.ndarray], groups: np.ndarray, clusters: int
) -> dict[str, np.ndarray]:
    """Counts (S, N, 2, 3): class 1 on a fifth of the images, with objects four times smaller."""
    images = len(groups)
    size = np.exp(rng.normal([5.0, 3.6], 0.7, (images, 2)))
    size[:, 1] *= rng.random(images) < 0.2
    size = np.rint(size).astype(int)
    hard = 0.6 * rng.standard_normal(clusters)[groups] + 0.6 * rng.standard_normal(images)
    tables = {}
    for loss, level in (("a", 0.8), ("b", 0.3)):
        own = 0.4 * rng.standard_normal(clusters)[groups] + 0.4 * rng.standard_normal(images)
        noise = 0.4 * rng.standard_normal((len(of_seeds[loss]), images))
        found = _logistic(level + of_seeds[loss][:, None] + (hard + own) + noise)[..., None]
        found = found * [1.0, 0.8]
        tp = rng.binomial(np.broadcast_to(size, found.shape), found)
        fp = rng.poisson(0.3 * size * found + 0.5)
        tables[loss] = np.stack([tp, fp, size - tp], axis=-1)
    return tables


def _mostly_empty(
    rng: np.random.Generator, of_seeds: Mapping[str, np.ndarray], groups: np.ndarray, clusters: int
) -> dict[str, np.ndarray]:
    """Counts (S, N, 1, 3): an object of some 65 pixels on 6 %, a thing that looks like one on 8 %."""
    images = len(groups)
    size = np.rint(np.exp(rng.normal(4.2, 0.25, images)) * (rng.random(images) < 0.06)).astype(int)
    decoy = rng.random(images) < 0.08
    hard = 0.6 * rng.standard_normal(clusters)[groups] + 0.6 * rng.standard_normal(images)
    tables = {}
    for loss, level in (("a", 1.0), ("b", 0.4)):
        own, trap = 0.5 * rng.standard_normal((2, images))
        seeds = of_seeds[loss][:, None]
        found = _logistic(
            level + seeds + hard + own + 0.6 * rng.standard_normal((len(seeds), images))
        )
        tp = rng.binomial(np.broadcast_to(size, found.shape), found)
        taken = rng.random(found.shape) < decoy * _logistic(-2.0 + 0.5 * seeds + trap)
        fp = rng.poisson(0.05 + 0.08 * size * found + 35.0 * taken)
        tables[loss] = np.stack([tp, fp, size - tp], axis=-1)[:, :, None]
    return tables


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def true_dice_difference(design: Design, rng: np.random.Generator) -> float:
    """Expected difference over seeds of `counted_study` with a test set without end.

    Seeds at the quantiles of their distribution, 200,000 images; 800,000 where most are empty.
    """
    quantiles = stats.norm.ppf((np.arange(50) + 0.5) / 50)
    total: dict[str, np.ndarray] = {}
    for _ in range(80 if design.quantity == EMPTY else 20):
        tables, _ = counted_study(design, rng, seed_effects=quantiles, images=10_000)
        for name, counts in tables.items():
            total[name] = total.get(name, 0) + counts.sum(1).astype(float)
    dice = {
        name: (2 * c[..., 0] / (2 * c[..., 0] + c[..., 1] + c[..., 2])).mean()
        for name, c in total.items()
    }
    return float(dice["a"] - dice["b"])


@dataclass(frozen=True)
class Trial:
    """One interval of one simulated study."""

    method: str
    truth: float
    low: float
    high: float
    p: float = np.nan


def trials(
    design: Design, rng: np.random.Generator, *, draws: int = 399, truth: float | None = None
) -> list[Trial]:
    """Simulate one study and make its intervals, one a method."""
    if design.quantity in (POOLED, EMPTY):
        tables, groups = counted_study(design, rng)
        metric = "foreground_dice"
        truth = true_dice_difference(design, rng) if truth is None else truth
    else:
        values, groups = study(design, rng)
        tables, metric, truth = {"a": values, "b": np.zeros_like(values)}, "value", 0.0
    found = []
    methods: tuple[paired.Method, ...] = ("studentised", "student")
    for method in methods:
        result = paired.paired_differences(
            tables, groups=groups, metric=metric, draws=draws, method=method, rng=rng
        )[0]
        found.append(Trial(method, truth, result.low, result.high, result.p_value(truth)))
    others = percentiles(tables, groups, metric, draws, rng)
    found.extend(Trial(name, truth, *ends) for name, ends in others.items())
    return found


def percentiles(
    tables: Mapping[str, np.ndarray],
    groups: np.ndarray,
    metric: str,
    draws: int,
    rng: np.random.Generator,
) -> dict[str, tuple[float, float]]:
    """Plain percentile interval and BCa (Efron 1987) of hierarchical resamples of two losses.

    BCa's acceleration comes from leaving out each seed and each cluster once.
    """
    sums = paired._sums(tables, metric, None, paired._units(groups, len(groups)))
    seeds, clusters = sums.top.shape[1:3]

    def difference(by_seed: np.ndarray, by_cluster: np.ndarray) -> np.ndarray:
        per_seed = paired._pooled(sums, by_cluster)[0]
        return ((per_seed[:, 0] - per_seed[:, 1]) * by_seed).sum(-1) / seeds

    whole = difference(np.ones((1, seeds)), np.ones((1, clusters)))[0]
    drawn = difference(
        paired.drawn_counts(rng, draws, seeds), paired.drawn_counts(rng, draws, clusters)
    )
    lifts = []
    for side, count in enumerate((seeds, clusters)):
        out = (1 - np.eye(count)) * count / (count - 1)
        ones = np.ones((count, (clusters, seeds)[side]))
        left = difference(*((ones, out) if side else (out, ones)))
        lifts.append((left.mean() - left) * (count - 1) / count)
    cubes, squares = (sum((lift**power).sum() for lift in lifts) for power in (3, 2))
    # a sample in which nothing, or only what is undefined, can be left out has no acceleration
    known = np.isfinite(cubes) and np.isfinite(squares) and squares > 0
    acceleration = cubes / (6 * squares**1.5) if known else 0.0
    bias = stats.norm.ppf(((drawn < whole).sum() + 0.5) / (draws + 1))
    ends = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    shift = bias + stats.norm.ppf(ends)
    found = {}
    for method, levels in (
        ("percentile", ends),
        ("bca", stats.norm.cdf(bias + shift / (1 - acceleration * shift))),
    ):
        low, high = np.quantile(drawn, levels)
        found[method] = (float(low), float(high))
    return found


def simulate(design: Design, replications: int, draws: int = 399, *, seed: int = 0) -> pd.DataFrame:
    """Coverage of one design: a row a method.

    Columns: the design's, method, replications, draws, coverage, standard_error (of the coverage), above
    and below (part of the intervals that lie above, below the truth), width (mean), and for
    differences false_01 and false_001: how often p ≤ 0.01 and ≤ 0.001 where the truth is the null.
    """
    if replications < 2:
        raise ValueError(f"expected at least 2 replications, got {replications}")
    rng = np.random.default_rng([seed, DESIGNS.index(design) if design in DESIGNS else 0])
    truth = true_dice_difference(design, rng) if design.quantity in (POOLED, EMPTY) else None
    found: dict[str, list[Trial]] = {}
    for _ in range(replications):
        for trial in trials(design, rng, draws=draws, truth=truth):
            found.setdefault(trial.method, []).append(trial)
    rows = []
    for method, made in found.items():
        truths, low, high, p = (
            np.array([getattr(t, name) for t in made]) for name in ("truth", "low", "high", "p")
        )
        above, below = (low > truths + 1e-12).mean(), (high < truths - 1e-12).mean()
        coverage = 1 - above - below
        false = [np.nan if np.isnan(p).all() else (p <= alpha).mean() for alpha in _FAR]
        rows.append(
            vars(design)
            | {
                "method": method,
                "replications": replications,
                "draws": draws,
                "coverage": coverage,
                "standard_error": np.sqrt(coverage * (1 - coverage) / replications),
                "above": above,
                "below": below,
                "width": (high - low).mean(),
                "false_01": false[0],
                "false_001": false[1],
            }
        )
    return pd.DataFrame(rows)


def main(
    arguments: Sequence[str] | None = None,
    designs: Sequence[Design] = DESIGNS,
    say: Callable[[str], None] = print,
) -> None:
    """Simulate every design and write the table, a row a design and kind of interval."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    parser.add_argument("--replications", type=int, default=2000, help="studies of each design")
    parser.add_argument("--draws", type=int, default=399, help="resamples of each interval")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--fresh", action="store_true", help="also what the file has already")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    asked = {"replications": options.replications, "draws": options.draws}
    kept = pd.DataFrame() if options.fresh else _kept(options.out, asked)
    tables = (
        {design_key(table.iloc[0]): table for _, table in kept.groupby(list(_FIELDS))}
        if len(kept)
        else {}
    )
    missing = [design for design in designs if design_key(vars(design)) not in tables]
    with ProcessPoolExecutor(options.jobs) as pool:
        times = [MORE if design.mix == "like groups" else 1 for design in missing]
        studies = [round(options.replications * each) for each in times]
        made = pool.map(simulate, missing, studies, itertools.repeat(options.draws))
        for design, table in zip(missing, made, strict=True):
            tables[design_key(vars(design))] = table
            shown = "  ".join(f"{row.method} {row.coverage:.3f}" for row in table.itertuples())
            say(f"{design}: {shown}")
            found = [tables[key] for d in designs if (key := design_key(vars(d))) in tables]
            pd.concat(found).to_csv(options.out, index=False, float_format="%.5g")


_FIELDS = tuple(field.name for field in dataclasses.fields(Design))


def design_key(row: Mapping[str, Any] | pd.Series) -> str:
    """What a row of the table, or a design, is known by."""
    return "|".join(str(row[field]) for field in _FIELDS)


def _kept(path: Path, asked: Mapping[str, int]) -> pd.DataFrame:
    """The rows of an unfinished or earlier simulation that is no smaller; of `MORE` where more are asked."""
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path)
    if not set(asked) <= set(table):
        return table[:0]
    wanted = asked["replications"] * np.where(table.mix == "like groups", MORE, 1)
    return table[(table.replications == wanted.round()) & (table.draws == asked["draws"])]


if __name__ == "__main__":
    main()
