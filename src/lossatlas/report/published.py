"""Tables that others published, as facts with their source, and what they say about a loss: always as a difference.

Levels are never compared with ours: another network, image size or split moves them by more than any loss does.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

#: Badrinarayanan et al. 2017, Table 1, CamVid, in per cent: global accuracy G, class accuracy C, mIoU, BF, first with
#: median-frequency balancing, then with the natural frequency.
SEGNET: Final = {
    "Bilinear": ((77.9, 61.1, 43.3, 20.83), (82.7, 52.5, 43.8, 23.08)),
    "SegNet-Basic": ((82.7, 62.0, 47.7, 35.78), (84.0, 54.6, 46.3, 36.67)),
    "EncoderAddition": ((83.4, 63.6, 48.5, 35.92), (84.2, 56.5, 47.7, 36.27)),
    "Single Channel Decoder": ((81.2, 60.7, 46.1, 31.62), (83.5, 53.9, 45.2, 32.45)),
    "FCN-Basic": ((81.7, 62.4, 47.3, 38.11), (83.9, 55.6, 45.0, 37.33)),
    "NoAddition": ((80.5, 58.6, 44.1, 31.96), (82.3, 53.9, 44.2, 29.43)),
    "NoDimReduction": ((84.1, 63.4, 50.1, 37.37), (83.5, 57.3, 47.0, 37.13)),
    "NoAdd-NoDimRed": ((80.5, 61.6, 45.9, 30.47), (83.7, 54.8, 45.5, 33.17)),
}
SEGNET_MEASURES: Final = ("G", "C", "mIoU", "BF")

#: The model zoo of mmsegmentation, U-Net, foreground Dice in per cent: cross-entropy, then cross-entropy + 3·Dice; for
#: each data set with the heads FCN, PSPNet and DeepLabV3, one training each.
VESSELS: Final = {
    "DRIVE": ((78.67, 79.32), (78.62, 79.42), (78.69, 79.56)),
    "STARE": ((81.02, 82.70), (81.22, 82.84), (80.93, 82.71)),
    "CHASE_DB1": ((80.24, 80.40), (80.36, 80.28), (80.47, 80.37)),
    "HRF": ((79.45, 80.87), (80.07, 80.96), (80.21, 80.71)),
}

#: Ma et al. 2021, "Loss Odyssey in Medical Image Segmentation": Dice of 14 losses on four tasks.
LOSS_ODYSSEY: Final = {
    "CE": (0.9672, 0.5641, 0.8221, 0.8483),
    "WCE": (0.8284, 0.2697, 0.4744, 0.6904),
    "TopK": (0.6924, 0.5995, 0.8406, 0.8527),
    "Focal": (0.9587, 0.4675, 0.8016, 0.8173),
    "Dice": (0.9547, 0.6187, 0.8362, 0.8449),
    "GDice": (0.9474, 0.5486, 0.8285, 0.0132),
    "IoU": (0.9568, 0.6079, 0.8353, 0.8439),
    "Tversky": (0.9390, 0.6120, 0.8260, 0.8371),
    "Lovász": (0.9294, 0.6083, 0.8309, 0.6568),
    "DiceCE": (0.9624, 0.6009, 0.8249, 0.8512),
    "DiceFocal": (0.9566, 0.5951, 0.8416, 0.8554),
    "DiceTopK": (0.9690, 0.6125, 0.8375, 0.8512),
    "DiceBD": (0.9629, 0.6262, 0.8397, 0.8450),
    "DiceHD": (0.9556, 0.6291, 0.8408, 0.8531),
}
ODYSSEY_TASKS: Final = ("liver", "liver tumour", "pancreas", "multi-organ")


def segnet_differences() -> pd.DataFrame:
    """Balanced less natural, in points: a row for each of the eight networks, a column for each measure."""
    rows = {name: np.subtract(*pair) for name, pair in SEGNET.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(SEGNET_MEASURES))


def vessel_differences() -> pd.DataFrame:
    """Cross-entropy + 3·Dice less cross-entropy, in points of Dice: columns data set, points; a row a head."""
    rows = [(name, both - alone) for name, heads in VESSELS.items() for alone, both in heads]
    return pd.DataFrame(rows, columns=["data set", "points"])


def odyssey_differences(loss: str, other: str) -> pd.Series:
    """`loss` less `other` in points of Dice on the four tasks; names as in ``LOSS_ODYSSEY``."""
    gap = 100 * np.subtract(LOSS_ODYSSEY[loss], LOSS_ODYSSEY[other])
    return pd.Series(gap, index=list(ODYSSEY_TASKS), name="points")


def prediction_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Where one more value of the same normal population lies: mean ± t·s·√(1 + 1/n).

    Raises:
        ValueError: fewer than two values.
    """
    given = np.asarray(values, dtype=float)
    if given.ndim != 1 or len(given) < 2:
        raise ValueError(f"expected at least two values in a row, got shape {given.shape}")
    n = len(given)
    half = stats.t.ppf((1 + level) / 2, n - 1) * given.std(ddof=1) * math.sqrt(1 + 1 / n)
    return float(given.mean() - half), float(given.mean() + half)
