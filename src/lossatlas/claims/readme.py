"""The README's picture and answer, written from records and never by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from lossatlas.claims import real_images, several_classes
from lossatlas.report import front

#: The README's block: the text between ``<!-- answer: … -->`` and ``<!-- /answer -->``.
ANSWER = "answer"
#: Where its pictures are, from the repository's root.
PICTURES = Path("results/readme")


def answer(found: dict[str, Any], real: dict[str, Any], several: dict[str, str]) -> str:
    """The block: picture, answer, and what is not known.

    Args:
        found: numbers of `front.numbers`.
        real: numbers of `real_images.numbers`.
        several: numbers of `several_classes.numbers`.
    """
    gated = found["gated"]
    return f"""\
<picture>
  <source media="(prefers-color-scheme: dark)" srcset="{PICTURES}/seeds_dark.svg">
  <img src="{PICTURES}/seeds_light.svg" alt="Test Dice, one line for each seed: cross-entropy at ½, cross-entropy at \
its threshold, Dice at ½">
</picture>

**Cross-entropy or Dice? One class: cross-entropy first.** At tuned thresholds plain Dice is shown better \
in none of {real["prior"]["tasks"]} real tasks, worse in {real["prior"]["behind"]}.

1. **Start the last bias at the foreground's log odds, for Dice too.** Its mean lead over cross-entropy is \
then {real["prior"]["low"]} to {real["prior"]["high"]}; from 0 it was {real["rates"]["low"]} to {real["rates"]["high"]}.
2. **No ReLU before the last layer.** On digits {gated["ce"]["nothing_at_half"]} of \
{gated["ce"]["trainings"]} trainings stayed empty at ½; with the prior none.
3. **Tune the threshold on validation.** Cross-entropy on pedestrians: from {real["pedestrians"]["ce_half"]} to \
{real["pedestrians"]["ce"]}; Dice at ½: {real["pedestrians"]["dice_half"]}.
4. **For probabilities: cross-entropy.** Its likelihood is better in all {real["calibration"]["tasks"]} tasks.
5. **Dice? Square it.** Shown ahead of plain Dice in {real["squared"]["ahead"]} of \
{real["squared"]["tasks"]} tasks, behind in none; against cross-entropy +{real["squared"]["pedestrians"]} points on \
pedestrians, −{real["squared"]["mitochondria"]} on mitochondria.
6. **Several classes: squared Dice.** On street scenes +{several["squared"]} points, after 2,000 steps \
+{several["long"]}; Dice + CE +{several["sum"]}.

Small U-Nets, short trainings, 5–{real["seeds"]} seeds. [Our first answer was wrong](book/retractions.md)."""


def write(records: str | Path, real: str | Path, root: str | Path = ".") -> Path:
    """Write the pictures and the README's block under ``root``; the README's path.

    Args:
        records: folder of the records of the study `begin`.
        real: folder of the records of the study `thresholds`.
        root: folder of the README.
    """
    root, table = Path(root), real_images.both(records, real)
    (root / PICTURES).mkdir(parents=True, exist_ok=True)
    for shade in ("light", "dark"):
        drawn = front.figure(table, dark=shade == "dark", titles=real_images.titles("en"))
        drawn.savefig(root / PICTURES / f"seeds_{shade}.svg", metadata={"Date": None})
        plt.close(drawn)
    readme = root / "README.md"
    several = several_classes.numbers(Path(real).parent)
    block = answer(front.numbers(records), real_images.numbers(real), several)
    readme.write_text(block_replaced(readme.read_text(encoding="utf-8"), block), encoding="utf-8")
    return readme


def block_replaced(text: str, made: str) -> str:
    """``text`` with what stands between ``<!-- answer: … -->`` and ``<!-- /answer -->`` replaced by `made`."""
    block = re.compile(rf"(<!-- {ANSWER}:[^>]*-->\n).*?(<!-- /{ANSWER} -->)", re.S)
    replaced, count = block.subn(lambda found: f"{found[1]}{made}\n{found[2]}", text)
    if count != 1:
        raise ValueError(
            f"README.md: expected one '<!-- {ANSWER}: … -->' with its '<!-- /{ANSWER} -->', got {count}"
        )
    return replaced
