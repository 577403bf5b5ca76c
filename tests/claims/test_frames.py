"""What a page says of two losses: the numbers, and what a correction for their number leaves shown."""

from __future__ import annotations

import pandas as pd

from lossatlas.claims import frames


def test_a_difference_is_ahead_behind_or_open_after_a_correction_for_their_number():
    found = pd.DataFrame(
        {"estimate": [0.04, -0.05, 0.03, -0.01], "low": [0.03, -0.06, 0.001, -0.02],
         "high": [0.05, -0.04, 0.06, 0.01], "p": [0.001, 0.002, 0.03, 0.4]},
        ["cracks", "vessels", "synapses", "mitochondria"],
    )  # fmt: skip
    shown = frames.verdicts(found)
    assert shown["shown"].tolist() == [
        "ahead",
        "behind",
        "open",
        "open",
    ]  # synapses: 0.03 is below 0.05 alone, and 2 × 0.03 is above it
    assert shown.loc["vessels", ["estimate", "low", "high"]].tolist() == [-5, -6, -4]
    alone = frames.verdicts(found.loc[["synapses"]], scale=1)
    assert alone["shown"].tolist() == ["ahead"] and alone.high.tolist() == [0.06]
