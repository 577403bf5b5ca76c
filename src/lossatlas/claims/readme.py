"""The README's picture and answer, written from records and never by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from lossatlas.claims import real_images
from lossatlas.report import front

#: The README's block: the text between ``<!-- answer: … -->`` and ``<!-- /answer -->``.
ANSWER = "answer"
#: Where its pictures are, from the repository's root.
PICTURES = Path("results/readme")


def answer(found: dict[str, Any], real: dict[str, Any]) -> str:
    """The block: picture, answer, and what is not known.

    Args:
        found: numbers of `front.numbers`.
        real: numbers of `real_images.numbers`.
    """
    gated = found["gated"]
    return f"""\
<picture>
  <source media="(prefers-color-scheme: dark)" srcset="{PICTURES}/seeds_dark.svg">
  <img src="{PICTURES}/seeds_light.svg" alt="Test Dice, a line a seed: cross-entropy at ½, at its threshold, and Dice">
</picture>

**Cross-entropy or Dice? From one start, at validation thresholds, on our images, Dice is shown ahead in none of \
{real["prior"]["tasks"]} real tasks, behind in {real["prior"]["behind"]}, open in {real["prior"]["open"]}. \
Default: cross-entropy.**

1. **Start the last bias at logit π, under Dice too.** Dice less cross-entropy, means of \
{real["prior"]["tasks"]} tasks: {real["rates"]["low"]} to {real["rates"]["high"]} with Dice from 0, \
{real["prior"]["low"]} to {real["prior"]["high"]} from one start. Short trainings, two rates.
2. **Check the last layer.** On digits at 3 %, behind four ReLU channels, {gated["ce"]["nothing_at_half"]} of \
{gated["ce"]["trainings"]} cross-entropy trainings found nothing at ½. Without it, or from the prior, none.
3. **Tune the threshold on validation.** On pedestrians it lifts cross-entropy's median from \
{real["pedestrians"]["ce_half"]} at ½ to {real["pedestrians"]["ce"]}; Dice from 0 has \
{real["pedestrians"]["dice_half"]} at ½.
4. **For probabilities take cross-entropy:** calibration error at most {real["calibration"]["ce"]} in \
{real["calibration"]["tasks"]} real tasks, Dice {real["calibration"]["low"]} to {real["calibration"]["high"]}.

Small U-Nets, n = {real["seeds"]}. Open: 0.1 % foreground, longer trainings, many classes. \
[Our first answer was wrong](book/retractions.md)."""


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
    block = answer(front.numbers(records), real_images.numbers(real))
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
