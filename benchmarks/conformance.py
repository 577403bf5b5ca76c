"""What other libraries compute under the same loss names: run them beside ours, record, render a page.

    python benchmarks/conformance.py measure     # writes results/conformance/conformance.json (about a minute)
    python benchmarks/conformance.py render      # writes book/what_libraries_mean_by_dice.md from that record

Three parts:

1. **Same or not.** Every call of a peer (``Row.theirs``) is evaluated with its gradient on scenes that separate the
   conventions: classes of unequal size, a class missing from one image, a class missing from the whole batch. The
   candidates of ours (``Row.ours``) are tried in order, our default first; the first that gives the same value and
   the same gradient on *every* scene names the difference. A row without such a candidate is reported as
   unexplained, which the tests refuse.
2. **Right or not.** Properties that hold by definition, whatever the convention: ignoring pixels equals removing
   them, a batch without labels has a finite loss, half precision agrees with double, a target that is predicted
   exactly costs nothing, a stray label is refused, a class predicted in several ways is charged as documented.
3. **The page**, rendered from the record alone.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import math
import platform
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "results" / "conformance" / "conformance.json"
PAGE = ROOT / "book" / "what_libraries_mean_by_dice.md"

TOLERANCE = 1e-6  # relative, of value and gradient
LIBRARIES = {
    "smp": "segmentation-models-pytorch",
    "monai": "monai",
    "kornia": "kornia",
}
VOID = 255


# ----------------------------------------------------------------------------------------------------------------------
# Scenes
# ----------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Scene:
    """One pair of logits and target on which the calls are compared."""

    name: str
    z: torch.Tensor
    y: torch.Tensor


def scenes(mode: str) -> list[Scene]:
    """The scenes of a mode; float64, so that only conventions differ."""
    g = torch.Generator().manual_seed(20)
    if mode == "multiclass":
        z = 1.5 * torch.randn(3, 4, 6, 5, generator=g, dtype=torch.float64)
        y = torch.multinomial(torch.tensor([0.5, 0.25, 0.15, 0.1]), 90, True, generator=g).reshape(3, 6, 5)
        y[:, 0, :4] = torch.arange(4)  # every class in every image
        one_image = y.clone()
        one_image[0][one_image[0] == 3] = 0
        nowhere = y.clone()
        nowhere[nowhere == 3] = 1
        return [
            Scene("every class in every image", z, y),
            Scene("a class missing from one image", z, one_image),
            Scene("a class missing from the batch", z, nowhere),
        ]
    z = 1.5 * torch.randn(3, 1, 6, 5, generator=g, dtype=torch.float64)
    y = (torch.rand(3, 6, 5, generator=g) < torch.tensor([0.5, 0.2, 0.1])[:, None, None]).long()
    y[:, 0, 0], y[:, 0, 1] = 1, 0
    one_empty = y.clone()
    one_empty[2] = 0
    return [
        Scene("foreground in every image", z, y),
        Scene("one image without foreground", z, one_empty),
        Scene("no foreground in the batch", z, torch.zeros_like(y)),
    ]


def namespace() -> dict[str, Any]:
    """The names that the recorded expressions use."""
    import kornia
    import monai
    import segmentation_models_pytorch as smp

    from lossatlas import losses

    def onehot(y: torch.Tensor, classes: int = 4) -> torch.Tensor:
        return F.one_hot(y, classes).movedim(-1, 1).double()

    return {
        "smp": smp.losses,
        "monai": monai.losses,
        "kornia": kornia.losses,
        "losses": losses,
        "torch": torch,
        "F": F,
        "onehot": onehot,
    }


def evaluate(expression: str, scene: Scene, names: dict[str, Any]) -> tuple[float, torch.Tensor]:
    """Value and logit gradient of an expression in z and y."""
    z = scene.z.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = eval(expression, dict(names, z=z, y=scene.y))  # noqa: S307 - the expressions are the rows below
        gradient = torch.autograd.grad(value, z, allow_unused=True)[0] if value.requires_grad else None
    return float(value.detach()), torch.zeros_like(z) if gradient is None else gradient


def gap(a: tuple[float, torch.Tensor], b: tuple[float, torch.Tensor]) -> tuple[float, float]:
    """Relative differences of value and gradient (largest entry over largest entry)."""
    value = abs(a[0] - b[0]) / max(abs(a[0]), abs(b[0]), 1e-12)
    scale = max(float(a[1].abs().max()), float(b[1].abs().max()))
    gradient = float((a[1] - b[1]).abs().max()) / scale if scale > 1e-12 else 0.0
    return (0.0 if a[0] == b[0] else value), gradient


# ----------------------------------------------------------------------------------------------------------------------
# Part 1: the rows
# ----------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Row:
    """A peer's call and the calls of ours that may reproduce it: (expression, what the difference is)."""

    loss: str
    library: str
    mode: str
    theirs: str
    ours: list[tuple[str, str]]
    tolerance: float = TOLERANCE
    note: str = ""


SMP_ABSENT = "a class without pixels in the batch stays in the mean, with loss 0"
PER_IMAGE_ALL = "each image on its own, and every class in the mean, so that an absent class costs its full loss"
PER_IMAGE = "each image on its own (ours: the whole batch at once)"
OVER_C = "the mean divides by C times the number of pixels: the same direction, C times smaller"
ONE_VS_ALL = "C independent sigmoids instead of a softmax"
F32 = 2e-6  # the peer computes in float32 whatever it is given


def compound(a: str, b: str) -> str:
    """The sum of two expressions."""
    return f"{a} + {b}"


ROWS: list[Row] = [
    # ------------------------------------------------------------------------------------------------- cross-entropy
    Row("Cross-entropy", "smp", "multiclass", "smp.SoftCrossEntropyLoss(smooth_factor=0.0)(z, y)",
        [("losses.CrossEntropyLoss()(z, y)", "")]),
    Row("Cross-entropy", "smp", "binary", "smp.SoftBCEWithLogitsLoss()(z, y.unsqueeze(1).double())",
        [("losses.CrossEntropyLoss(mode='binary')(z, y)", "")]),
    # --------------------------------------------------------------------------------------------------------- focal
    Row("Focal", "smp", "multiclass", "smp.FocalLoss('multiclass')(z, y)",
        [("losses.FocalLoss()(z, y)", ""),
         ("losses.FocalLoss(mode='multilabel')(z, onehot(y))", ONE_VS_ALL)]),
    Row("Focal", "smp", "binary", "smp.FocalLoss('binary')(z, y)",
        [("losses.FocalLoss(mode='binary')(z, y)", "")]),
    Row("Focal", "monai", "multiclass", "monai.FocalLoss(use_softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))",
        [("losses.FocalLoss()(z, y)", ""), ("losses.FocalLoss()(z, y) / 4", OVER_C)], F32),
    Row("Focal", "monai", "multiclass", "monai.FocalLoss(to_onehot_y=True)(z, y.unsqueeze(1))",
        [("losses.FocalLoss()(z, y)", ""),
         ("losses.FocalLoss(mode='multilabel')(z, onehot(y))", ONE_VS_ALL)], F32),
    Row("Focal", "monai", "binary", "monai.FocalLoss()(z, y.unsqueeze(1))",
        [("losses.FocalLoss(mode='binary')(z, y)", "")], F32),
    Row("Focal", "kornia", "multiclass", "kornia.FocalLoss(alpha=None, reduction='mean')(z, y)",
        [("losses.FocalLoss()(z, y)", ""), ("losses.FocalLoss()(z, y) / 4", OVER_C)]),
    Row("Focal", "kornia", "binary",
        "kornia.BinaryFocalLossWithLogits(alpha=None, reduction='mean')(z, y.unsqueeze(1).double())",
        [("losses.FocalLoss(mode='binary')(z, y)", "")]),
    # ---------------------------------------------------------------------------------------------------------- Dice
    Row("Dice", "smp", "multiclass", "smp.DiceLoss('multiclass')(z, y)",
        [("losses.DiceLoss()(z, y)", ""),
         ("losses.DiceLoss(reduction='none')(z, y).sum() / 4", SMP_ABSENT)]),
    Row("Dice", "smp", "binary", "smp.DiceLoss('binary')(z, y)",
        [("losses.DiceLoss(mode='binary')(z, y)", ""),
         ("losses.DiceLoss(mode='binary')(z, y) * (y.sum() > 0)", "a batch without foreground has loss 0 (ours: 1)")]),
    Row("Dice", "monai", "multiclass", "monai.DiceLoss(softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))",
        [("losses.DiceLoss()(z, y)", ""),
         ("losses.DiceLoss(per_image=True, classes='all', smooth=1e-5)(z, y)", PER_IMAGE_ALL)]),
    Row("Dice", "monai", "multiclass",
        "monai.DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=0, smooth_dr=0)(z, y.unsqueeze(1))",
        [("losses.DiceLoss()(z, y)", ""),
         ("losses.DiceLoss(classes='all')(z, y)", "every class in the mean, so that an absent class costs its full loss")]),
    Row("Dice", "monai", "binary", "monai.DiceLoss(sigmoid=True)(z, y.unsqueeze(1))",
        [("losses.DiceLoss(mode='binary')(z, y)", ""),
         ("losses.DiceLoss(mode='binary', per_image=True, smooth=1e-5)(z, y)", PER_IMAGE + ", smooth=1e-5")]),
    Row("Dice", "kornia", "multiclass", "kornia.DiceLoss()(z, y)",
        [("losses.DiceLoss()(z, y)", ""),
         ("1 - z.softmax(1).gather(1, y.unsqueeze(1)).mean()",
          "one ratio over all classes together ('micro'), which is 1 − the mean probability of the true class: "
          "no overlap measure is left, and no class is rare")]),
    Row("Dice", "kornia", "multiclass", "kornia.DiceLoss(average='macro')(z, y)",
        [("losses.DiceLoss()(z, y)", ""), ("losses.DiceLoss(per_image=True)(z, y)", PER_IMAGE)]),
    # ------------------------------------------------------------------------------------------------- squared Dice
    Row("Dice, squared", "monai", "multiclass",
        "monai.DiceLoss(softmax=True, to_onehot_y=True, squared_pred=True)(z, y.unsqueeze(1))",
        [("losses.DiceLoss(squared=True)(z, y)", ""),
         ("losses.DiceLoss(squared=True, per_image=True, classes='all', smooth=1e-5)(z, y)", PER_IMAGE_ALL)]),
    # ------------------------------------------------------------------------------------------------------- Jaccard
    Row("Jaccard", "smp", "multiclass", "smp.JaccardLoss('multiclass')(z, y)",
        [("losses.JaccardLoss()(z, y)", ""),
         ("losses.JaccardLoss(reduction='none')(z, y).sum() / 4", SMP_ABSENT)]),
    Row("Jaccard", "smp", "binary", "smp.JaccardLoss('binary')(z, y)",
        [("losses.JaccardLoss(mode='binary')(z, y)", ""),
         ("losses.JaccardLoss(mode='binary')(z, y) * (y.sum() > 0)", "a batch without foreground has loss 0 (ours: 1)")]),
    Row("Jaccard", "monai", "multiclass",
        "monai.DiceLoss(softmax=True, to_onehot_y=True, jaccard=True)(z, y.unsqueeze(1))",
        [("losses.JaccardLoss()(z, y)", ""),
         ("losses.JaccardLoss(per_image=True, classes='all', smooth=0.5e-5)(z, y)", PER_IMAGE_ALL)]),
    # ------------------------------------------------------------------------------------------------------- Tversky
    Row("Tversky", "smp", "multiclass", "smp.TverskyLoss('multiclass', alpha=0.3, beta=0.7)(z, y)",
        [("losses.TverskyLoss(alpha=0.3, beta=0.7)(z, y)", ""),
         ("losses.TverskyLoss(alpha=0.3, beta=0.7, reduction='none')(z, y).sum() / 4", SMP_ABSENT)]),
    Row("Tversky", "monai", "multiclass",
        "monai.TverskyLoss(softmax=True, to_onehot_y=True, alpha=0.3, beta=0.7)(z, y.unsqueeze(1))",
        [("losses.TverskyLoss(alpha=0.3, beta=0.7)(z, y)", ""),
         ("losses.TverskyLoss(alpha=0.3, beta=0.7, per_image=True, classes='all', smooth=1e-5)(z, y)",
          PER_IMAGE_ALL)]),
    Row("Tversky", "kornia", "multiclass", "kornia.TverskyLoss(alpha=0.3, beta=0.7)(z, y)",
        [("losses.TverskyLoss(alpha=0.3, beta=0.7)(z, y)", ""),
         ("losses.TverskyLoss(alpha=0.3, beta=0.7, per_image=True)(z, y)", PER_IMAGE)]),
    Row("Focal Tversky", "smp", "multiclass", "smp.TverskyLoss('multiclass', alpha=0.3, beta=0.7, gamma=0.75)(z, y)",
        [("losses.FocalTverskyLoss(alpha=0.3, beta=0.7, gamma=4 / 3)(z, y)", ""),
         ("(losses.TverskyLoss(alpha=0.3, beta=0.7, reduction='none')(z, y).sum() / 4) ** 0.75",
          "the power is taken of the mean over classes (paper and ours: of each class); its gamma is 1/γ; " + SMP_ABSENT)]),
    # ---------------------------------------------------------------------------------------------- generalised Dice
    Row("Generalised Dice", "monai", "multiclass",
        "monai.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=0, smooth_dr=0)"
        "(z, y.unsqueeze(1))",
        [("losses.GeneralizedDiceLoss()(z, y)", ""),
         ("generalized_dice_absent_as_rarest(z, y)",
          "an absent class gets the weight of the rarest class that is present (ours: it is left out)")], F32),
    # -------------------------------------------------------------------------------------------------------- Lovász
    Row("Lovász-softmax", "smp", "multiclass", "smp.LovaszLoss('multiclass')(z, y)",
        [("losses.LovaszSoftmaxLoss()(z, y)", "")], F32),
    Row("Lovász-softmax", "kornia", "multiclass", "kornia.LovaszSoftmaxLoss()(z, y)",
        [("losses.LovaszSoftmaxLoss()(z, y)", ""),
         ("losses.LovaszSoftmaxLoss(per_image=True, classes='all')(z, y)",
          "each image on its own, every class in the mean: an absent class costs its largest probability")]),
    Row("Lovász hinge", "smp", "binary", "smp.LovaszLoss('binary')(z, y)",
        [("losses.LovaszHingeLoss()(z, y)", "")], F32),
    Row("Lovász hinge", "kornia", "binary", "kornia.LovaszHingeLoss()(z, y)",
        [("losses.LovaszHingeLoss()(z, y)", ""), ("losses.LovaszHingeLoss(per_image=True)(z, y)", PER_IMAGE)]),
    # ----------------------------------------------------------------------------------------------------- compounds
    Row("Dice + CE", "monai", "multiclass", "monai.DiceCELoss(softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))",
        [("(losses.DiceLoss() + losses.CrossEntropyLoss())(z, y)", ""),
         ("(losses.DiceLoss(per_image=True, classes='all', smooth=1e-5) + losses.CrossEntropyLoss())(z, y)",
          "its Dice half: " + PER_IMAGE_ALL)]),
    Row("Dice + focal", "monai", "multiclass",
        "monai.DiceFocalLoss(softmax=True, to_onehot_y=True, use_softmax=True)(z, y.unsqueeze(1))"
        if False
        else "monai.DiceFocalLoss(softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))",
        [("(losses.DiceLoss() + losses.FocalLoss())(z, y)", ""),
         ("losses.DiceLoss(per_image=True, classes='all', smooth=1e-5)(z, y) + losses.FocalLoss()(z, y) / 4",
          "its Dice half: " + PER_IMAGE_ALL + "; its focal half: " + OVER_C),
         ("losses.DiceLoss(per_image=True, classes='all', smooth=1e-5)(z, y) "
          "+ losses.FocalLoss(mode='multilabel')(z, onehot(y))",
          "its Dice half: " + PER_IMAGE_ALL + "; its focal half: " + ONE_VS_ALL)], F32),
]
