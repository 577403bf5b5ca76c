"""The decision table: what to do by what the reader has, each row with its evidence or without.

``decisions.yaml`` holds it. A row says ``when`` it holds, what to ``do``, and on what that rests:
``studied`` (differences of a study's records, with interval and n), ``derived`` (a page of the book
proves it), or ``no study yet``. The numbers are written by :mod:`lossatlas.advise.evidence`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("decisions.yaml")
#: What the network is needed for.
NEEDS = ("mask", "probability", "boundary")
#: What is decided, in the order of the report.
DECISIONS = ("loss", "weights", "threshold", "sampling", "bias", "head", "metrics")
#: What is compared with a studied data set: see :func:`nearest`.
FEATURES = {
    "fraction": "foreground fraction",
    "area_share": "object size",
    "thinness": "thinness",
}
#: A data set is near if no feature differs by more than this factor.
NEAR_FACTOR = 3.0
#: From this thinness on (length over width of a strip) a class is called thin; drawn digits have 8 to 9.
THIN = 10.0
#: From this share of tiny objects on a class is said to have many.
TINY_SHARE = 0.25
#: Below this Dice of two annotators the labels are called noisy.
NOISY_DICE = 0.8


@cache
def load_table(file: Path = FILE) -> dict[str, Any]:
    """The table as ``decisions.yaml`` has it: ``studied`` data sets and ``rows``."""
    table: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return table


@dataclass(frozen=True)
class Nearest:
    """The studied data set that is nearest.

    Attributes:
        data: its entry in the table.
        factor: the largest factor between the two in any feature; infinite where one is unknown.
        feature: the feature that differs by it.
    """

    data: Mapping[str, Any]
    factor: float
    feature: str

    @property
    def near(self) -> bool:
        """Whether what was found there may be used here."""
        return self.factor <= NEAR_FACTOR

    def __str__(self) -> str:
        title = self.data["title"]
        if self.near:
            return f"nearest studied data set: {title} (every feature within a factor of {self.factor:.1f})"
        much = f"a factor of {self.factor:.1f}" if math.isfinite(self.factor) else "not comparable"
        return (
            f"nothing studied here is like your data: the nearest set, {title}, differs in "
            f"{FEATURES[self.feature]} ({much}; near is {NEAR_FACTOR:g} or less in every feature)"
        )


def nearest(row: Mapping[str, Any], table: Mapping[str, Any]) -> Nearest:
    """The studied data set whose largest difference from ``row`` is the smallest.

    The difference in a feature is a factor, the larger value over the smaller one; the features are
    the foreground fraction, the median object's share of its mask, and its thinness.
    """
    found = []
    for data in table["studied"]:
        factors = {name: _factor(row[name], data["facts"][name]) for name in FEATURES}
        worst = max(factors, key=lambda name: factors[name])
        found.append(Nearest(data, factors[worst], worst))
    return min(found, key=lambda each: each.factor)


def _factor(first: float | None, second: float | None) -> float:
    if not first or not second:
        return math.inf
    return max(first, second) / min(first, second)


def situation(
    facts: Mapping[str, Any], row: Mapping[str, Any], need: str, close: Nearest
) -> dict[str, Any]:
    """What the rows' ``when`` is compared with.

    Args:
        facts: of all masks, as `facts.measure` gives them, with ``annotators`` where there are some.
        row: of the class that governs.
        need: one of `NEEDS`.
        close: the nearest studied data set.
    """
    agreed = [
        dice[row["name"]]
        for dice in (each["dice"] for each in facts.get("annotators", []))
        if dice.get(row["name"]) is not None
    ]
    return {
        "near": close.data["id"] if close.near else False,
        "need": need,
        "thin": (row["thinness"] or 0) >= THIN,
        "tiny": (row["tiny_share"] or 0) >= TINY_SHARE,
        "multiclass": len(facts["foreground"]) > 1,
        "empty": facts["empty_share"] > 0,
        "noisy": bool(agreed) and min(agreed) < NOISY_DICE,
    }


def matching(table: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows that hold in a situation, by decision; a key that ``when`` lacks does not matter."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in DECISIONS}
    for row in table["rows"]:
        if all(here[key] == value for key, value in row["when"].items()):
            found[row["decision"]].append(row)
    return found
