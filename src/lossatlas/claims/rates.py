"""A loss at the better of the rates that it was trained at, chosen on validation by the seeds that are not compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lossatlas.report.records import Part, Records

#: Column of the runs that chooses: validation Dice at the threshold of validation.
_CHOOSES = "val_foreground_dice_tuned"


def preferred(records: Records, trained: Mapping[str, Sequence[str]]) -> Records:
    """Records in which every loss has, for each seed, the training at its better rate.

    The better rate of a seed is that with the higher mean validation Dice, at the threshold of validation, of all
    *other* seeds. A rate that is chosen on the seeds that are compared would favour a loss whose rates are level.

    Args:
        records: of a study with one label for each loss and rate.
        trained: by loss the labels of its trainings, ``{"dice": ["dice_low", "dice_high"]}``.

    Returns:
        the records under the names of the losses, for the seeds that every rate of a loss has; a loss with fewer than
        two such seeds at a place is missing there.

    Raises:
        ValueError: a label that the study does not have.
    """
    names = {loss["label"]: loss["name"] for loss in records.study["losses"]}
    for labels in trained.values():
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise ValueError(
                f"expected labels of losses of {records.name} ({', '.join(names)}), got {unknown[0]!r}"
            )
    losses = [{"label": loss, "name": names[labels[0]]} for loss, labels in trained.items()]
    parts = [_preferred(part, trained) for part in records.parts]
    runs = pd.concat([part.runs for part in parts], ignore_index=True)
    return replace(records, study=records.study | {"losses": losses}, runs=runs, parts=parts)


def _preferred(part: Part, trained: Mapping[str, Sequence[str]]) -> Part:
    runs: list[pd.DataFrame] = []
    seeds: dict[str, list[int]] = {}
    by_rule: dict[str, dict[str, np.ndarray]] = {rule: {} for rule in part.by_rule}
    for loss, labels in trained.items():
        own = part.runs[part.runs.loss.isin(labels)]
        scores = own.pivot(index="seed", columns="loss", values=_CHOOSES)
        scores = scores.reindex(columns=[*labels]).dropna()
        if len(scores) < 2:
            continue
        chosen = (scores.sum() - scores).idxmax(axis=1)  # a seed's own score takes no part
        taken_from = [
            (int(seed), str(label)) for seed, label in zip(chosen.index, chosen, strict=True)
        ]
        seeds[loss] = [seed for seed, _ in taken_from]
        taken = own[own.loss == own.seed.map(chosen)].sort_values("seed")
        runs.append(taken.assign(loss=loss))
        for rule, counts in part.by_rule.items():
            if not set(labels) <= set(counts):  # a loss may have fewer measures than the others
                continue
            by_rule[rule][loss] = np.stack(
                [counts[label][part.seeds[label].index(seed)] for seed, label in taken_from]
            )
    return replace(
        part,
        losses=list(seeds),
        seeds=seeds,
        counts=by_rule["argmax"],
        by_rule=by_rule,
        runs=pd.concat(runs, ignore_index=True) if runs else part.runs.iloc[:0],
        styles={},
        predictions={},
    )
