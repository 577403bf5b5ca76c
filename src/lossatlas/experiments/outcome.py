"""Whether a training began: arithmetic alone, so that what plans and chooses need not load torch."""

from __future__ import annotations

#: A run began if its best threshold lifts it so far from the best constant prediction towards a perfect one.
BEGAN_SHARE = 0.05


def began(oracle_dice: float, constant_dice: float) -> bool:
    """Whether the logits rank better than a constant: at its best threshold the network is 5 % of the way to perfect.

    Args:
        oracle_dice: mean foreground Dice at the threshold that is best on the split itself.
        constant_dice: that of the best constant prediction, see ``evaluation.constant_dice``.
    """
    return bool(oracle_dice >= constant_dice + BEGAN_SHARE * (1 - constant_dice))
