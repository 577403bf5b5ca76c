"""The studies of several classes: losses against cross-entropy, each at the rate that validation prefers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lossatlas.claims import frames
from lossatlas.report import front
from lossatlas.report.records import Records
from lossatlas.statistics.counts import metric_of_seeds

_PAGES = "README.md, book/intro.md, book/decision_guide.md"

#: The losses of `many_classes`, by the label without its rate.
NAMES = {
    "ce": "cross-entropy",
    "weighted": "weighted CE",
    "focal": "focal",
    "dice": "Dice",
    "squared": "squared Dice",
    "sum": "Dice + CE",
    "lovasz": "Lovász",
}


def _kind(labels: pd.Series) -> pd.Series:
    return labels.str.rsplit("_", n=1).str[0]


def preferred(known: Records) -> pd.DataFrame:
    """Task by loss: the label of the rate with the larger mean Dice on validation, with offsets."""
    runs = known.runs.assign(kind=_kind(known.runs.loss))
    means = runs.groupby(["dataset", "kind", "loss"], sort=False).val_foreground_dice_tuned.mean()
    chosen = means.groupby(level=["dataset", "kind"], sort=False).idxmax().str[2].unstack()
    return chosen[[name for name in NAMES if name in chosen]]


def less_ce(known: Records, quantity: str, rule: str) -> pd.DataFrame:
    """A quantity of each loss less that of cross-entropy, each at its preferred rate, in points.

    For other trainings on these test images; ``shown`` after Holm's correction for all rows.

    Args:
        known: of `many_classes`, or of a study with its labels.
        quantity: as :func:`lossatlas.claims.frames.differences` has it.
        rule: the decision rule, likewise.
    """
    rows = {
        (str(task), NAMES[str(kind)]): frames.differences(
            known, quantity, [labels[kind], labels["ce"]], rule, over="seeds"
        ).loc[str(task)]
        for task, labels in preferred(known).iterrows()
        for kind in labels.index.drop("ce")
    }
    return frames.verdicts(pd.DataFrame(rows).T)


def at_preferred(known: Records) -> pd.DataFrame:
    """The runs at their preferred rates with ``name``, in the order of `NAMES`; squared Dice has its own style."""
    rates = preferred(known)
    kinds = _kind(known.runs.loss)
    runs = known.runs.assign(name=kinds.map(NAMES))
    runs = runs[
        [
            rates.loc[task, kind] == label
            for task, kind, label in zip(runs.dataset, kinds, runs.loss, strict=True)
        ]
    ]
    squared = runs.name == NAMES["squared"]
    runs = runs.assign(loss_name=runs.loss_name.mask(squared, "dice_squared"))
    return pd.concat(runs[runs.name == name] for name in NAMES.values())


def of_classes(known: Records) -> dict[str, pd.DataFrame]:
    """By task: test Dice of each class with the largest probability in points, means over seeds, the rarest last."""
    runs = at_preferred(known)[["run_id", "name"]]
    rows = known.per_class[known.per_class.rule == "argmax"].merge(runs, on="run_id")
    found = {}
    for task, of in rows.groupby("dataset", sort=False):
        table = 100 * of.pivot_table("dice", "class_name", "name", sort=False)
        share = 100 * of.groupby("class_name").target_fraction.mean()
        table.insert(0, "% of pixels", share)
        table = table.sort_values("% of pixels", ascending=False)
        found[str(task)] = table.rename_axis(index="class", columns=None)
    return found


def lead_by_group(known: Records, task: str = "streets") -> pd.Series:
    """Squared Dice less cross-entropy with the largest probability for each group of test images: points of mean Dice.

    Means over the seeds, at the preferred rates; a group of street scenes is a video.
    """
    labels = {str(kind): str(label) for kind, label in preferred(known).loc[task].items()}
    part = next(part for part in known.parts if part.dataset == task)
    rows = {}
    for group in dict.fromkeys(part.groups):
        inside = [index for index, of in enumerate(part.groups) if of == group]
        squared, ce = (
            metric_of_seeds(
                part.counts[labels[kind]][:, inside], "foreground_dice", part.foreground
            )
            for kind in ("squared", "ce")
        )
        rows[group] = 100 * float((squared - ce).mean())
    return pd.Series(rows)


def numbers(results: str | Path) -> dict[str, str]:
    """What the first page, the guide and the README say of several classes, as text: points of mean Dice.

    Returns:
        on street scenes with the largest probability, how far squared Dice (``squared``) and Dice + CE (``sum``) lie
        ahead of cross-entropy, and squared Dice after 2,000 steps (``long``; ``long_offsets`` with offsets);
        how far class weights lie behind on tissue (``weights``). Empty while `many_classes` or `many_classes_long` is
        not whole.

    Raises:
        FrontError: on street scenes with the largest probability another set of losses than Dice, squared Dice, Dice +
            CE and Lovász is shown ahead; a loss is shown ahead on tissue; another than weighted cross-entropy is shown
            behind; anything is shown with offsets; or squared Dice is not ahead of cross-entropy after 2,000 steps.
    """
    sets = frames.whole(results, "many_classes", "many_classes_long")
    if not sets:
        return {}
    largest, offsets = (less_ce(sets[0], "dice", rule) for rule in ("half", "tuned"))
    leads = {("streets", NAMES[kind]) for kind in ("dice", "squared", "sum", "lovasz")}
    front.stands(
        results,
        "with the largest probability four losses with an overlap are shown ahead of cross-entropy on street scenes, "
        "class weights behind on tissue, and nothing with offsets",
        {*largest.index[largest.shown == "ahead"]} == leads
        and largest.index[largest.shown == "behind"].tolist() == [("tissue", NAMES["weighted"])]
        and offsets.shown.eq("open").all(),
        {"largest probability": largest.shown.to_dict(), "offsets": offsets.shown.to_dict()},
        _PAGES,
    )
    long = pd.concat([less_ce(sets[1], "dice", rule) for rule in ("half", "tuned")])
    front.stands(
        results,
        "after 2,000 steps squared Dice is ahead of cross-entropy on street scenes, with offsets, too",
        long.shown.eq("ahead").all(),
        long.shown.tolist(),
        _PAGES,
    )
    points = largest.estimate
    return {
        "long": f"{long.estimate.iloc[0]:.1f}",
        "long_offsets": f"{long.estimate.iloc[1]:.1f}",
        "squared": f"{points['streets', NAMES['squared']]:.1f}",
        "sum": f"{points['streets', NAMES['sum']]:.1f}",
        "weights": f"{-points['tissue', NAMES['weighted']]:.0f}",
    }
