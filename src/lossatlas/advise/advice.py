"""From masks to advice: facts, the nearest studied data set, and the table's rows that hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lossatlas.advise import table as decisions
from lossatlas.advise.facts import (
    SHAPE_MASKS,
    MaskSet,
    disagreement,
    measure,
    rarest,
    read_masks,
)
from lossatlas.data.errors import DataError

#: What the decisions are called in a report.
TITLES = {
    "loss": "Loss",
    "weights": "Class weights",
    "threshold": "Threshold",
    "sampling": "Sampling",
    "bias": "Bias of the last layer",
    "head": "Last layer",
    "metrics": "Metrics",
}
_MEASURES = {
    "foreground_dice": "Dice",
    "ece_foreground": "calibration error on foreground",
    "began": "share of trainings that began",
}
_RULES = {"argmax": "at ½", "tuned": "at the validation threshold"}


def advise(
    root: str | Path,
    *,
    need: str = "mask",
    also: Sequence[str | Path] = (),
    ignore_index: int | None = None,
    shape_masks: int = SHAPE_MASKS,
) -> dict[str, Any]:
    """Advice for the masks of a folder, as JSON-able values.

    Args:
        root: the folder; masks alone suffice.
        need: what the network is for: ``"mask"``, ``"probability"`` or ``"boundary"``.
        also: folders with other annotators' masks of the same images, matched by name.
        ignore_index: value of void pixels, where ``classes.yaml`` has none.
        shape_masks: so many masks, evenly spaced, are searched for objects.

    Returns:
        ``facts`` (see `facts.measure`) with ``annotators``; ``governed_by``, the rarest class, whose row
        chooses; ``nearest`` studied data set; ``prior_bias``; ``decisions``: rows of the table.

    Raises:
        DataError: no masks, or masks that cannot be read; says which and how to correct it.
    """
    if need not in decisions.NEEDS:
        raise DataError(f"need: expected one of {', '.join(decisions.NEEDS)}, got {need!r}")
    masks = read_masks(root, ignore_index=ignore_index)
    return advise_on(
        masks,
        need=need,
        others=[read_masks(folder, ignore_index=ignore_index, like=masks) for folder in also],
        shape_masks=shape_masks,
    )


def advise_on(
    masks: MaskSet, *, need: str, others: Sequence[MaskSet] = (), shape_masks: int = SHAPE_MASKS
) -> dict[str, Any]:
    """`advise` for masks that are already found."""
    facts = measure(
        masks.labels(),
        masks.classes,
        masks.void,
        count=len(masks.layout.pairs),
        shape_masks=shape_masks,
    )
    facts["annotators"] = [disagreement(masks, other) for other in others]
    row, known = rarest(facts), decisions.load_table()
    close = decisions.nearest(row, known)
    here = decisions.situation(facts, row, need, close)
    return {
        "root": str(masks.layout.root),
        "need": need,
        "facts": facts,
        "governed_by": row["name"],
        "nearest": {
            "id": close.data["id"],
            "title": close.data["title"],
            "near": close.near,
            "factor": close.factor if math.isfinite(close.factor) else None,
            "feature": close.feature,
            "text": str(close),
        },
        "situation": here,
        "prior_bias": prior_bias(facts),
        "decisions": decisions.matching(known, here),
    }


def prior_bias(facts: Mapping[str, Any]) -> dict[str, float]:
    """Start of the last layer's bias by class: that of the best constant prediction.

    One foreground class: the log odds of the foreground, for one channel. Several: the logarithm of
    each class's fraction less the mean of these, for one channel a class. A class without a pixel
    is left out.
    """
    rows = [row for row in facts["foreground"] if row["fraction"] > 0]
    if len(facts["foreground"]) == 1 and rows and rows[0]["fraction"] < 1:
        (row,) = rows
        return {row["name"]: math.log(row["fraction"] / (1 - row["fraction"]))}
    background = 1 - sum(row["fraction"] for row in rows)
    logs = {row["name"]: math.log(row["fraction"]) for row in rows}
    if background > 1e-12:
        logs = {"background": math.log(background)} | logs
    mean = sum(logs.values()) / len(logs)
    return {name: value - mean for name, value in logs.items()}


def evidence_line(item: Mapping[str, Any]) -> str:
    """One piece of evidence as a line: what, effect, interval, n, study."""
    low, high = item["interval"]
    what = _MEASURES[item["measure"]]
    where = f"study {item['study']}, {item['first']['dataset']}"
    if "second" not in item:
        return (
            f"{what}, {_arm(item['first'])}: {item['effect']:.0%} [{low:.0%}, {high:.0%}], "
            f"n = {item['n']} ({where})"
        )
    return (
        f"{what}, {_arm(item['first'])} − {_arm(item['second'])}: {item['effect']:+.3f} "
        f"[{low:+.3f}, {high:+.3f}], n = {item['n']} ({where})"
    )


def _arm(arm: Mapping[str, Any]) -> str:
    rule = f" {_RULES[arm['rule']]}" if "rule" in arm else ""
    return f"{arm['loss']}{rule} [{arm['model']}]"


def basis(row: Mapping[str, Any]) -> str:
    """On what a row rests, in a few words."""
    if row["status"] == "derived":
        return f"derived: chapter {row['derivation']} of the book"
    return str(row["status"])


def facts_lines(advice: Mapping[str, Any]) -> list[str]:
    """The facts as sentences."""
    facts = advice["facts"]
    low, mid, high = facts["height"]
    sizes = f"{mid}×{facts['width'][1]} pixels"
    if (low, facts["width"][0]) != (high, facts["width"][2]):
        sizes = f"{low}×{facts['width'][0]} to {high}×{facts['width'][2]} pixels"
    lines = [
        f"{facts['masks']} masks of {sizes}; {facts['empty_share']:.1%} without foreground; "
        f"{facts['void_share']:.2%} of the pixels void"
    ]
    for row in facts["foreground"]:
        text = f"{row['name']}: {row['fraction']:.4%} of the pixels, in {row['masks']} masks"
        if row["objects"]:
            text += (
                f"; {row['objects']} objects in the {facts['searched']} masks searched, median "
                f"{row['area_px'][1]:.0f} px, {row['tiny_share']:.0%} under 16 px; the median pixel's object has "
                f"{row['area_share']:.3%} of its mask"
            )
        if row["thinness"] is not None:
            text += f", is {row['width_px']:.1f} px wide, thinness {row['thinness']:.1f}"
        lines.append(text)
    for each in facts["annotators"]:
        agreed = ", ".join(
            f"{name} {'–' if value is None else format(value, '.3f')}"
            for name, value in each["dice"].items()
        )
        lines.append(
            f"annotators agree (Dice) with {each['folder']}: {agreed}, {each['masks']} masks"
        )
    return lines


def describe(advice: Mapping[str, Any]) -> str:
    """The advice as text."""
    lines = [f"{advice['root']}: advice where a {advice['need']} is needed", ""]
    lines += facts_lines(advice)
    lines += [
        "",
        f"{advice['nearest']['text']}",
        f"the rarest class governs: {advice['governed_by']}",
    ]
    for name, rows in advice["decisions"].items():
        lines += ["", TITLES[name]]
        for row in rows:
            lines.append(f"  {row['do']}  [{basis(row)}]")
            lines += [f"    {evidence_line(item)}" for item in row.get("evidence", [])]
        if name == "bias":
            values = ", ".join(f"{key} {value:.2f}" for key, value in advice["prior_bias"].items())
            lines.append(f"  the prior bias of your masks: {values}")
    return "\n".join(lines)
