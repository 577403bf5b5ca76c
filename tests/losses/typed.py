"""What a type checker must see of the losses' parameters: `make lint` reads this file, and nothing runs it."""

# mypy: warn-unused-ignores, enable-error-code="arg-type,call-arg"
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossatlas import losses

    losses.FocalLoss(gamma=1.0, mode="binary", process_group="world")
    losses.FocalLoss(mode=3)  # type: ignore[arg-type]
    losses.DiceLoss(smoth=1.0)  # type: ignore[call-arg]
    losses.OHEMCrossEntropyLoss(process_group="world")  # type: ignore[call-arg]
