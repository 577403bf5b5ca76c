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
   them, a batch without labels costs nothing, half precision agrees with double, a stray label is refused, a gradient
   that is finite by definition is finite, and right at the size of real batches.
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
        y = torch.multinomial(torch.tensor([0.5, 0.25, 0.15, 0.1]), 90, True, generator=g).reshape(
            3, 6, 5
        )
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
        "generalized_dice_absent_as_rarest": generalized_dice_absent_as_rarest,
    }


def evaluate(expression: str, scene: Scene, names: dict[str, Any]) -> tuple[float, torch.Tensor]:
    """Value and logit gradient of an expression in z and y."""
    z = scene.z.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = eval(expression, dict(names, z=z, y=scene.y))
        gradient = (
            torch.autograd.grad(value, z, allow_unused=True)[0] if value.requires_grad else None
        )
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
F32 = 2e-6  # the peer computes in float32 whatever it is given, or refuses float64


ROWS: list[Row] = [
    # ------------------------------------------------------------------------------------------------- cross-entropy
    Row(
        "Cross-entropy",
        "smp",
        "multiclass",
        "smp.SoftCrossEntropyLoss(smooth_factor=0.0)(z, y)",
        [("losses.CrossEntropyLoss()(z, y)", "")],
    ),
    Row(
        "Cross-entropy",
        "smp",
        "binary",
        "smp.SoftBCEWithLogitsLoss()(z, y.unsqueeze(1).double())",
        [("losses.CrossEntropyLoss(mode='binary')(z, y)", "")],
    ),
    # --------------------------------------------------------------------------------------------------------- focal
    Row(
        "Focal",
        "smp",
        "multiclass",
        "smp.FocalLoss('multiclass')(z, y)",
        [
            ("losses.FocalLoss()(z, y)", ""),
            ("losses.FocalLoss(mode='multilabel')(z, onehot(y))", ONE_VS_ALL),
        ],
    ),
    Row(
        "Focal",
        "smp",
        "binary",
        "smp.FocalLoss('binary')(z, y)",
        [("losses.FocalLoss(mode='binary')(z, y)", "")],
    ),
    Row(
        "Focal",
        "monai",
        "multiclass",
        "monai.FocalLoss(use_softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))",
        [("losses.FocalLoss()(z, y)", ""), ("losses.FocalLoss()(z, y) / 4", OVER_C)],
        F32,
    ),
    Row(
        "Focal",
        "monai",
        "multiclass",
        "monai.FocalLoss(to_onehot_y=True)(z, y.unsqueeze(1))",
        [
            ("losses.FocalLoss()(z, y)", ""),
            ("losses.FocalLoss(mode='multilabel')(z, onehot(y))", ONE_VS_ALL),
        ],
        F32,
    ),
    Row(
        "Focal",
        "monai",
        "binary",
        "monai.FocalLoss()(z, y.unsqueeze(1))",
        [("losses.FocalLoss(mode='binary')(z, y)", "")],
        F32,
    ),
    Row(
        "Focal",
        "kornia",
        "multiclass",
        "kornia.FocalLoss(alpha=None, reduction='mean')(z, y)",
        [("losses.FocalLoss()(z, y)", ""), ("losses.FocalLoss()(z, y) / 4", OVER_C)],
    ),
    Row(
        "Focal",
        "kornia",
        "binary",
        "kornia.BinaryFocalLossWithLogits(alpha=None, reduction='mean')(z, y.unsqueeze(1).double())",
        [("losses.FocalLoss(mode='binary')(z, y)", "")],
    ),
    # ---------------------------------------------------------------------------------------------------------- Dice
    Row(
        "Dice",
        "smp",
        "multiclass",
        "smp.DiceLoss('multiclass')(z, y)",
        [
            ("losses.DiceLoss()(z, y)", ""),
            ("losses.DiceLoss(reduction='none')(z, y).sum() / 4", SMP_ABSENT),
        ],
    ),
    Row(
        "Dice",
        "smp",
        "binary",
        "smp.DiceLoss('binary')(z, y)",
        [
            ("losses.DiceLoss(mode='binary')(z, y)", ""),
            (
                "losses.DiceLoss(mode='binary')(z, y) * (y.sum() > 0)",
                "a batch without foreground has loss 0 (ours: 1)",
            ),
        ],
    ),
    Row(
        "Dice",
        "monai",
        "multiclass",
        "monai.DiceLoss(softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))",
        [
            ("losses.DiceLoss()(z, y)", ""),
            ("losses.DiceLoss(per_image=True, classes='all', smooth=1e-5)(z, y)", PER_IMAGE_ALL),
        ],
    ),
    Row(
        "Dice",
        "monai",
        "multiclass",
        "monai.DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=0, smooth_dr=0)(z, y.unsqueeze(1))",
        [
            ("losses.DiceLoss()(z, y)", ""),
            (
                "losses.DiceLoss(classes='all')(z, y)",
                "every class in the mean, so that an absent class costs its full loss",
            ),
        ],
    ),
    Row(
        "Dice",
        "monai",
        "binary",
        "monai.DiceLoss(sigmoid=True)(z, y.unsqueeze(1))",
        [
            ("losses.DiceLoss(mode='binary')(z, y)", ""),
            (
                "losses.DiceLoss(mode='binary', per_image=True, smooth=1e-5)(z, y)",
                PER_IMAGE + ", smooth=1e-5",
            ),
        ],
    ),
    Row(
        "Dice",
        "kornia",
        "multiclass",
        "kornia.DiceLoss()(z, y)",
        [
            ("losses.DiceLoss()(z, y)", ""),
            (
                "1 - z.softmax(1).gather(1, y.unsqueeze(1)).mean()",
                "one ratio over all classes together ('micro'), which is 1 − the mean probability of the true class: "
                "no overlap measure is left, and no class is rare",
            ),
        ],
    ),
    Row(
        "Dice",
        "kornia",
        "multiclass",
        "kornia.DiceLoss(average='macro')(z, y)",
        [("losses.DiceLoss()(z, y)", ""), ("losses.DiceLoss(per_image=True)(z, y)", PER_IMAGE)],
    ),
    # ------------------------------------------------------------------------------------------------- squared Dice
    Row(
        "Dice, squared",
        "monai",
        "multiclass",
        "monai.DiceLoss(softmax=True, to_onehot_y=True, squared_pred=True)(z, y.unsqueeze(1))",
        [
            ("losses.DiceLoss(squared=True)(z, y)", ""),
            (
                "losses.DiceLoss(squared=True, per_image=True, classes='all', smooth=1e-5)(z, y)",
                PER_IMAGE_ALL,
            ),
        ],
    ),
    # ------------------------------------------------------------------------------------------------------- Jaccard
    Row(
        "Jaccard",
        "smp",
        "multiclass",
        "smp.JaccardLoss('multiclass')(z, y)",
        [
            ("losses.JaccardLoss()(z, y)", ""),
            ("losses.JaccardLoss(reduction='none')(z, y).sum() / 4", SMP_ABSENT),
        ],
    ),
    Row(
        "Jaccard",
        "smp",
        "binary",
        "smp.JaccardLoss('binary')(z, y)",
        [
            ("losses.JaccardLoss(mode='binary')(z, y)", ""),
            (
                "losses.JaccardLoss(mode='binary')(z, y) * (y.sum() > 0)",
                "a batch without foreground has loss 0 (ours: 1)",
            ),
        ],
    ),
    Row(
        "Jaccard",
        "monai",
        "multiclass",
        "monai.DiceLoss(softmax=True, to_onehot_y=True, jaccard=True)(z, y.unsqueeze(1))",
        [
            ("losses.JaccardLoss()(z, y)", ""),
            (
                "losses.JaccardLoss(per_image=True, classes='all', smooth=0.5e-5)(z, y)",
                PER_IMAGE_ALL,
            ),
        ],
    ),
    # ------------------------------------------------------------------------------------------------------- Tversky
    Row(
        "Tversky",
        "smp",
        "multiclass",
        "smp.TverskyLoss('multiclass', alpha=0.3, beta=0.7)(z, y)",
        [
            ("losses.TverskyLoss(alpha=0.3, beta=0.7)(z, y)", ""),
            (
                "losses.TverskyLoss(alpha=0.3, beta=0.7, reduction='none')(z, y).sum() / 4",
                SMP_ABSENT,
            ),
        ],
    ),
    Row(
        "Tversky",
        "monai",
        "multiclass",
        "monai.TverskyLoss(softmax=True, to_onehot_y=True, alpha=0.3, beta=0.7)(z, y.unsqueeze(1))",
        [
            ("losses.TverskyLoss(alpha=0.3, beta=0.7)(z, y)", ""),
            (
                "losses.TverskyLoss(alpha=0.3, beta=0.7, per_image=True, classes='all', smooth=1e-5)(z, y)",
                PER_IMAGE_ALL,
            ),
        ],
    ),
    Row(
        "Tversky",
        "kornia",
        "multiclass",
        "kornia.TverskyLoss(alpha=0.3, beta=0.7)(z, y)",
        [
            ("losses.TverskyLoss(alpha=0.3, beta=0.7)(z, y)", ""),
            ("losses.TverskyLoss(alpha=0.3, beta=0.7, per_image=True)(z, y)", PER_IMAGE),
        ],
    ),
    Row(
        "Focal Tversky",
        "smp",
        "multiclass",
        "smp.TverskyLoss('multiclass', alpha=0.3, beta=0.7, gamma=0.75)(z, y)",
        [
            ("losses.FocalTverskyLoss(alpha=0.3, beta=0.7, gamma=4 / 3)(z, y)", ""),
            (
                "(losses.TverskyLoss(alpha=0.3, beta=0.7, reduction='none')(z, y).sum() / 4) ** 0.75",
                "the power is taken of the mean over classes (paper and ours: of each class); its gamma is 1/γ; "
                + SMP_ABSENT,
            ),
        ],
    ),
    # ---------------------------------------------------------------------------------------------- generalised Dice
    Row(
        "Generalised Dice",
        "monai",
        "multiclass",
        "monai.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=0, smooth_dr=0)"
        "(z, y.unsqueeze(1))",
        [
            ("losses.GeneralizedDiceLoss()(z, y)", ""),
            (
                "generalized_dice_absent_as_rarest(z, y)",
                "an absent class gets the weight of the rarest class that is present (ours: it is left out)",
            ),
        ],
        F32,
    ),
    # -------------------------------------------------------------------------------------------------------- Lovász
    Row(
        "Lovász-softmax",
        "smp",
        "multiclass",
        "smp.LovaszLoss('multiclass')(z.float(), y)",
        [("losses.LovaszSoftmaxLoss()(z, y)", "")],
        F32,
    ),
    Row(
        "Lovász-softmax",
        "kornia",
        "multiclass",
        "kornia.LovaszSoftmaxLoss()(z, y)",
        [
            ("losses.LovaszSoftmaxLoss()(z, y)", ""),
            (
                "losses.LovaszSoftmaxLoss(per_image=True, classes='all')(z, y)",
                "each image on its own, every class in the mean: an absent class costs its largest probability",
            ),
        ],
    ),
    Row(
        "Lovász hinge",
        "smp",
        "binary",
        "smp.LovaszLoss('binary')(z.float(), y)",
        [
            ("losses.LovaszHingeLoss()(z, y)", ""),
            (
                "losses.LovaszHingeLoss(per_image=False)(z, y)",
                "the whole batch at once (paper and ours: each image)",
            ),
        ],
        F32,
    ),
    Row(
        "Lovász hinge",
        "kornia",
        "binary",
        "kornia.LovaszHingeLoss()(z, y)",
        [
            ("losses.LovaszHingeLoss()(z, y)", ""),
            ("losses.LovaszHingeLoss(per_image=True)(z, y)", PER_IMAGE),
        ],
    ),
    # ----------------------------------------------------------------------------------------------------- compounds
    Row(
        "Dice + CE",
        "monai",
        "multiclass",
        "monai.DiceCELoss(softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))",
        [
            ("(losses.DiceLoss() + losses.CrossEntropyLoss())(z, y)", ""),
            (
                "(losses.DiceLoss(per_image=True, classes='all', smooth=1e-5) + losses.CrossEntropyLoss())(z, y)",
                "its Dice half: " + PER_IMAGE_ALL,
            ),
        ],
    ),
    Row(
        "Dice + focal",
        "monai",
        "multiclass",
        "monai.DiceFocalLoss(softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))",
        [
            ("(losses.DiceLoss() + losses.FocalLoss())(z, y)", ""),
            (
                "losses.DiceLoss(per_image=True, classes='all', smooth=1e-5)(z, y) + losses.FocalLoss()(z, y) / 4",
                "its Dice half: " + PER_IMAGE_ALL + "; its focal half: " + OVER_C,
            ),
            (
                "losses.DiceLoss(per_image=True, classes='all', smooth=1e-5)(z, y) "
                "+ losses.FocalLoss(mode='multilabel')(z, onehot(y))",
                "its Dice half: " + PER_IMAGE_ALL + "; its focal half: " + ONE_VS_ALL,
            ),
        ],
        F32,
    ),
]


@dataclass
class Comparison:
    """What a row's evaluation returned."""

    loss: str
    library: str
    mode: str
    theirs: str
    verdict: str  # "agrees", "differs" or "unexplained"
    because: str
    reproduced_by: str
    values: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # scene -> theirs, ours (default)
    largest_gap: float = math.nan  # of the reproducing call, over scenes, value and gradient
    tolerance: float = TOLERANCE


def compare(row: Row, names: dict[str, Any]) -> Comparison:
    """Find the first of our calls that gives the peer's value and gradient on every scene."""
    stage = scenes(row.mode)
    theirs = [evaluate(row.theirs, s, names) for s in stage]
    default = [evaluate(row.ours[0][0], s, names) for s in stage]
    out = Comparison(
        row.loss, row.library, row.mode, row.theirs, "unexplained", "", "", tolerance=row.tolerance
    )
    for s, a, b in zip(stage, theirs, default, strict=True):
        out.values[s.name] = {"theirs": a[0], "ours": b[0]}
    for expression, reason in row.ours:
        mine = [evaluate(expression, s, names) for s in stage]
        worst = max(max(gap(a, b)) for a, b in zip(theirs, mine, strict=True))
        if worst <= row.tolerance:
            out.verdict = "differs" if reason else "agrees"
            out.because, out.reproduced_by, out.largest_gap = reason, expression, worst
            break
    return out


# ----------------------------------------------------------------------------------------------------------------------
# Part 2: properties that hold by definition
# ----------------------------------------------------------------------------------------------------------------------
@dataclass
class Finding:
    """One property of one call."""

    property: str
    loss: str
    library: str
    call: str
    holds: bool
    measured: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A call with a place for the ignore_index, and how it takes its target."""

    loss: str
    library: str
    mode: str
    constructor: str  # with {ignore} where ", ignore_index=255" goes; without it the call has no such argument
    target: str = "y"

    def call(self, ignore: bool) -> str:
        """The expression in z and y."""
        return (
            self.constructor.replace("{ignore}", f", ignore_index={VOID}" if ignore else "")
            + f"(z, {self.target})"
        )


M, K1 = "y.unsqueeze(1)", "y.unsqueeze(1).double()"
ONE_HOT = "softmax=True, to_onehot_y=True"
SUBJECTS: list[Subject] = [
    Subject(
        "Cross-entropy", "ours", "multiclass", "losses.CrossEntropyLoss(mode='multiclass'{ignore})"
    ),
    Subject(
        "Cross-entropy", "smp", "multiclass", "smp.SoftCrossEntropyLoss(smooth_factor=0.0{ignore})"
    ),
    Subject("Cross-entropy", "ours", "binary", "losses.CrossEntropyLoss(mode='binary'{ignore})"),
    Subject(
        "Cross-entropy", "smp", "binary", "smp.SoftBCEWithLogitsLoss(smooth_factor=0.0{ignore})", K1
    ),
    Subject("Focal", "ours", "multiclass", "losses.FocalLoss(mode='multiclass'{ignore})"),
    Subject("Focal", "smp", "multiclass", "smp.FocalLoss('multiclass'{ignore})"),
    Subject(
        "Focal",
        "monai",
        "multiclass",
        "monai.FocalLoss(use_softmax=True, to_onehot_y=True{ignore})",
        M,
    ),
    Subject(
        "Focal", "kornia", "multiclass", "kornia.FocalLoss(alpha=None, reduction='mean'{ignore})"
    ),
    Subject("Focal", "ours", "binary", "losses.FocalLoss(mode='binary'{ignore})"),
    Subject("Focal", "smp", "binary", "smp.FocalLoss('binary'{ignore})"),
    Subject("Focal", "monai", "binary", "monai.FocalLoss(gamma=2.0{ignore})", M),
    Subject(
        "Focal",
        "kornia",
        "binary",
        "kornia.BinaryFocalLossWithLogits(alpha=None, reduction='mean'{ignore})",
        K1,
    ),
    Subject("Dice", "ours", "multiclass", "losses.DiceLoss(mode='multiclass'{ignore})"),
    Subject("Dice", "smp", "multiclass", "smp.DiceLoss('multiclass'{ignore})"),
    Subject("Dice", "monai", "multiclass", f"monai.DiceLoss({ONE_HOT}{{ignore}})", M),
    Subject("Dice", "kornia", "multiclass", "kornia.DiceLoss(average='macro'{ignore})"),
    Subject("Jaccard", "ours", "multiclass", "losses.JaccardLoss(mode='multiclass'{ignore})"),
    Subject("Jaccard", "smp", "multiclass", "smp.JaccardLoss('multiclass'{ignore})"),
    Subject(
        "Jaccard", "monai", "multiclass", f"monai.DiceLoss({ONE_HOT}, jaccard=True{{ignore}})", M
    ),
    Subject("Tversky", "ours", "multiclass", "losses.TverskyLoss(alpha=0.3, beta=0.7{ignore})"),
    Subject(
        "Tversky", "smp", "multiclass", "smp.TverskyLoss('multiclass', alpha=0.3, beta=0.7{ignore})"
    ),
    Subject(
        "Tversky",
        "monai",
        "multiclass",
        f"monai.TverskyLoss({ONE_HOT}, alpha=0.3, beta=0.7{{ignore}})",
        M,
    ),
    Subject("Tversky", "kornia", "multiclass", "kornia.TverskyLoss(alpha=0.3, beta=0.7{ignore})"),
    Subject(
        "Generalised Dice",
        "ours",
        "multiclass",
        "losses.GeneralizedDiceLoss(mode='multiclass'{ignore})",
    ),
    Subject("Generalised Dice", "monai", "multiclass", f"monai.GeneralizedDiceLoss({ONE_HOT})", M),
    Subject(
        "Lovász-softmax",
        "ours",
        "multiclass",
        "losses.LovaszSoftmaxLoss(mode='multiclass'{ignore})",
    ),
    Subject("Lovász-softmax", "smp", "multiclass", "smp.LovaszLoss('multiclass'{ignore})"),
    Subject("Lovász-softmax", "kornia", "multiclass", "kornia.LovaszSoftmaxLoss()"),
    Subject("Lovász hinge", "ours", "binary", "losses.LovaszHingeLoss(mode='binary'{ignore})"),
    Subject("Lovász hinge", "smp", "binary", "smp.LovaszLoss('binary'{ignore})"),
    Subject("Lovász hinge", "kornia", "binary", "kornia.LovaszHingeLoss()"),
    Subject(
        "Unified focal",
        "monai",
        "binary",
        "monai.AsymmetricUnifiedFocalLoss(gamma=0.5, delta=0.6)",
        M,
    ),
]


def attempt(
    expression: str, scene: Scene, names: dict[str, Any]
) -> tuple[float, torch.Tensor] | str:
    """Value and gradient, or the error's first line."""
    if "smp.LovaszLoss" in expression and scene.z.dtype == torch.float64:
        scene = Scene(scene.name, scene.z.float(), scene.y)  # it raises on float64
    try:
        return evaluate(expression, scene, names)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[
            :160
        ]


def ignoring_equals_removing(subject: Subject, names: dict[str, Any]) -> Finding | None:
    """The first two rows of every image are void: the loss must equal that of the images without those rows."""
    if "{ignore}" not in subject.constructor:
        return None
    base = scenes(subject.mode)[0]
    y = base.y.clone()
    y[:, :2] = VOID
    ignored = attempt(subject.call(True), Scene("void", base.z, y), names)
    cropped = attempt(subject.call(False), Scene("cropped", base.z[:, :, 2:], base.y[:, 2:]), names)
    call = subject.call(True)
    if isinstance(ignored, str) or isinstance(cropped, str):
        return Finding("ignoring", subject.loss, subject.library, call, False, f"raised {ignored}")
    removed = torch.zeros_like(ignored[1])
    removed[:, :, 2:] = cropped[1]
    value, gradient = gap(ignored, (cropped[0], removed))
    holds = max(value, gradient) < F32
    text = (
        "equals the loss without the ignored pixels"
        if holds
        else f"{ignored[0]:.4f} with a third of the pixels ignored, {cropped[0]:.4f} on the other two thirds alone"
    )
    return Finding(
        "ignoring",
        subject.loss,
        subject.library,
        call,
        holds,
        text,
        {"ignored": ignored[0], "cropped": cropped[0], "gradient_gap": gradient},
    )


def all_ignored_is_zero(subject: Subject, names: dict[str, Any]) -> Finding | None:
    """No pixel is left: the loss must be 0 with a zero gradient."""
    if "{ignore}" not in subject.constructor:
        return None
    base = scenes(subject.mode)[0]
    got = attempt(subject.call(True), Scene("void", base.z, torch.full_like(base.y, VOID)), names)
    call = subject.call(True)
    if isinstance(got, str):
        return Finding("all ignored", subject.loss, subject.library, call, False, f"raised {got}")
    value, gradient = got[0], float(got[1].abs().max())
    holds = value == 0 and gradient == 0
    text = (
        "0 with a zero gradient" if holds else f"value {value:.4g}, largest gradient {gradient:.4g}"
    )
    return Finding(
        "all ignored",
        subject.loss,
        subject.library,
        call,
        holds,
        text,
        {"value": value, "gradient": gradient},
    )


def half_precision(subject: Subject, names: dict[str, Any], images: int = 2) -> Finding:
    """float16 logits, images x 3 x 512^2: value and gradient against the same call in float64."""
    g = torch.Generator().manual_seed(5)
    channels = 3 if subject.mode == "multiclass" else 1
    z = torch.randn(images, channels, 512, 512, generator=g).half()
    y = (torch.rand(images, 512, 512, generator=g) ** 2 * (3 if channels == 3 else 1.4)).long()
    call = subject.call(False)
    half = attempt(call.replace(".double()", ".half()"), Scene("half", z, y), names)
    exact = attempt(call, Scene("double", z.double(), y), names)
    if isinstance(half, str) or isinstance(exact, str):
        return Finding(
            "half precision",
            subject.loss,
            subject.library,
            call,
            False,
            f"raised {half if isinstance(half, str) else exact}",
        )
    value = abs(half[0] - exact[0]) / abs(exact[0])
    finite = math.isfinite(half[0]) and bool(half[1].isfinite().all())
    # The gradient of a mean over half a million pixels underflows in float16 whatever the library does; its total
    # over the pixels of a class survives, so compare the float16 gradient after its own rounding.
    rounded = exact[1].half().double()
    gradient = (
        float((half[1].double() - rounded).abs().sum() / rounded.abs().sum())
        if finite and rounded.any()
        else math.inf
    )
    holds = finite and value < 0.01 and gradient < 0.05
    if not finite:
        text = (
            f"value {half[0]:.4g} where float64 has {exact[0]:.4f}; the gradient is not finite"
            if not bool(half[1].isfinite().all())
            else f"value {half[0]:.4g} where float64 has {exact[0]:.4f}"
        )
    elif holds:
        text = f"value within {value:.1e} of float64"
    else:
        zero = "; the gradient is all zero" if not half[1].any() else ""
        text = f"value {half[0]:.4f} where float64 has {exact[0]:.4f}, gradient off by {gradient:.0%}{zero}"
    return Finding(
        "half precision",
        subject.loss,
        subject.library,
        call,
        holds,
        text,
        {"value": half[0], "float64": exact[0], "gradient_gap": gradient},
    )


def stray_label_is_refused(subject: Subject, names: dict[str, Any]) -> Finding:
    """A label 300 among 4 classes (2 in binary mode) is a mistake in the data and must raise."""
    base = scenes(subject.mode)[0]
    y = base.y.clone()
    y[0, 0, 0] = 300 if subject.mode == "multiclass" else 2
    got = attempt(subject.call(False), Scene("stray", base.z, y), names)
    holds = isinstance(got, str)
    text = got if isinstance(got, str) else f"accepted in silence, value {got[0]:.4f}"
    return Finding("stray label", subject.loss, subject.library, subject.call(False), holds, text)


SOFT: list[tuple[str, str, str]] = [
    ("Dice", "ours", "losses.DiceLoss(mode='binary')(z, t)"),
    ("Dice, squared", "ours", "losses.DiceLoss(mode='binary', squared=True)(z, t)"),
    ("Dice semimetric", "ours", "losses.DiceSemimetricLoss(mode='binary')(z, t)"),
    ("Dice", "smp", "smp.DiceLoss('binary')(z, t)"),
    ("Dice", "monai", "monai.DiceLoss(sigmoid=True)(z, t)"),
    ("Dice semimetric", "monai", "monai.DiceLoss(sigmoid=True, soft_label=True)(z, t)"),
    ("Dice, squared", "monai", "monai.DiceLoss(sigmoid=True, squared_pred=True)(z, t)"),
]


def soft_target_table(names: dict[str, Any]) -> list[dict[str, Any]]:
    """loss(p, p) for probabilities around 0.2."""
    g = torch.Generator().manual_seed(3)
    z = torch.randn(2, 1, 16, 16, generator=g, dtype=torch.float64) - 1.4
    rows = []
    for loss, library, call in SOFT:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = float(eval(call, dict(names, z=z, t=z.sigmoid())))
        rows.append({"loss": loss, "library": library, "call": call, "value": value})
    return rows


FLAT: list[tuple[str, str, str]] = [
    ("focal", "ours", "losses.FocalLoss(mode='binary', gamma=0.5)(z, y)"),
    ("focal", "smp", "smp.FocalLoss('binary', gamma=0.5)(z, y)"),
    ("focal", "monai", "monai.FocalLoss(gamma=0.5)(z, y.unsqueeze(1))"),
    (
        "focal",
        "kornia",
        "kornia.BinaryFocalLossWithLogits(alpha=None, gamma=0.5, reduction='mean')(z, y.unsqueeze(1).double())",
    ),
]


def focal_gradient_at_certainty(library: str, call: str, names: dict[str, Any]) -> Finding:
    """gamma = 0.5 and a logit of 200 on the right side: (1 - p)^gamma has an infinite slope there, the loss has not."""
    z = torch.full((1, 1, 4, 4), 200.0, dtype=torch.float64)
    got = attempt(call, Scene("certain", z, torch.ones(1, 4, 4, dtype=torch.long)), names)
    finite = not isinstance(got, str) and bool(got[1].isfinite().all())
    text = got if isinstance(got, str) else ("finite gradient" if finite else "NaN gradient")
    return Finding("focal, gamma < 1", "Focal", library, call, finite, text)


SAME_IN_FLOAT64 = {
    ("Lovász-softmax", "ours"): "losses.LovaszSoftmaxLoss()(z, y)",
    ("Lovász-softmax", "smp"): "losses.LovaszSoftmaxLoss()(z, y)",
    ("Lovász-softmax", "kornia"): "losses.LovaszSoftmaxLoss(per_image=True, classes='all')(z, y)",
    ("Lovász hinge", "ours"): "losses.LovaszHingeLoss()(z, y)",
    ("Lovász hinge", "smp"): "losses.LovaszHingeLoss(per_image=False)(z, y)",
    ("Lovász hinge", "kornia"): "losses.LovaszHingeLoss()(z, y)",
}


def lovasz_float32(subject: Subject, names: dict[str, Any], images: int, side: int) -> Finding:
    """float32 gradient against the closed-form float64 one, pixel by pixel; distinct errors, so no ties matter."""
    g = torch.Generator().manual_seed(9)
    y = (torch.rand(images, side, side, generator=g) < 0.3).long()
    if subject.mode == "binary":
        z = torch.randn(images, 1, side, side, generator=g)
    else:
        z = torch.randn(images, 2, side, side, generator=g)
    call = subject.call(False)
    # The reference is ours in float64, with the grouping that part 1 shows the call to have.
    single = evaluate(call, Scene("float32", z, y), names)[1].double()
    exact = evaluate(
        SAME_IN_FLOAT64[subject.loss, subject.library], Scene("float64", z.double(), y), names
    )[1]
    used = exact != 0
    relative = ((single - exact).abs() / exact.abs())[used]
    median = float(relative.median())
    zero = float((single[used] == 0).double().mean())
    total = float((single - exact).abs().sum() / exact.abs().sum())
    holds = total < 1e-4
    text = f"{images * side * side / 2**20:g} megapixels: median error {median:.1e}, {zero:.0%} of the gradients zero"
    return Finding(
        "float32 at size",
        subject.loss,
        subject.library,
        call,
        holds,
        text,
        {"median": median, "zero": zero, "total": total, "pixels": images * side * side},
    )


def unified_focal_takes_probabilities(names: dict[str, Any]) -> Finding:
    """MONAI's docstring says that the input is logits, transformed by a sigmoid inside."""
    base = scenes("binary")[0]
    call = "monai.AsymmetricUnifiedFocalLoss(gamma=0.5, delta=0.6)"
    raw = evaluate(f"{call}(z, y.unsqueeze(1))", base, names)[0]
    through = evaluate(f"{call}(z.sigmoid(), y.unsqueeze(1))", base, names)[0]
    clamped = evaluate(f"{call}(z.clamp(1e-7, 1 - 1e-7), y.unsqueeze(1))", base, names)[0]
    holds = abs(raw - through) < 1e-6
    text = (
        "the sigmoid that its docstring promises is applied"
        if holds
        else f"the sigmoid that its docstring promises is missing: {raw:.4f} for logits, which is what clamping them "
        f"to (0, 1) gives ({clamped:.4f}); {through:.4f} for their sigmoid"
    )
    return Finding(
        "takes logits",
        "Unified focal",
        "monai",
        call,
        holds,
        text,
        {"raw": raw, "sigmoid": through, "clamped": clamped},
    )


ABSENT: list[tuple[str, str]] = [
    ("smp", "smp.DiceLoss('multiclass')(z, y)"),
    ("kornia, macro", "kornia.DiceLoss(average='macro')(z, y)"),
    ("kornia, micro", "kornia.DiceLoss()(z, y)"),
    ("monai", "monai.DiceLoss(softmax=True, to_onehot_y=True)(z, y.unsqueeze(1))"),
    ("ours, classes='present' (default)", "losses.DiceLoss()(z, y)"),
    ("ours, classes='all'", "losses.DiceLoss(classes='all')(z, y)"),
]


def absent_class_table(names: dict[str, Any]) -> list[dict[str, Any]]:
    """A uniform prediction over four classes on a target that is all class 0."""
    scene = Scene(
        "uniform",
        torch.zeros(1, 4, 8, 8, dtype=torch.float64),
        torch.zeros(1, 8, 8, dtype=torch.long),
    )
    return [
        {"who": who, "call": call, "value": evaluate(call, scene, names)[0]} for who, call in ABSENT
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Part 3: measure and render
# ----------------------------------------------------------------------------------------------------------------------
PROPERTIES: dict[str, tuple[str, str]] = {
    "ignoring": (
        "Ignoring equals removing",
        "A third of the pixels carries `ignore_index`. The loss must be that of the other pixels alone, gradient "
        "included: not their sum over a count that still holds the ignored ones.",
    ),
    "all ignored": (
        "All ignored is nothing",
        "Every pixel carries `ignore_index`, as padding or a border crop brings about. One NaN here ends a training.",
    ),
    "half precision": (
        "Half precision agrees",
        "float16 logits of 2×3×512×512 (binary: 2×1×512×512) against the same call in float64: the value to 1 %, the "
        "gradient to 5 % in sum, after the rounding that float16 itself forces on the exact gradient.",
    ),
    "stray label": (
        "A stray label is refused",
        "One label 300 among four classes (2 among two): a mistake in the data, worth an error.",
    ),
    "focal, gamma < 1": (
        "Focal with γ < 1 at a certain pixel",
        "γ = ½ and a logit of 200 on the right side: the loss is 0 and its gradient too, but (1−p)^γ alone has an "
        "infinite slope there.",
    ),
    "float32 at size": (
        "Lovász in float32 at training size",
        "The gradient in float32 against ours in float64, in the "
        "same grouping. Differencing the Jaccard curve of millions of "
        "pixels in float32 loses the increments, which are a millionth of the curve; their closed form does not.",
    ),
    "takes logits": (
        "Takes what it says",
        "A loss that is documented to take logits must not read them as probabilities.",
    ),
}


def measure(quick: bool = False) -> dict[str, Any]:
    """Evaluate every row and every property. ``quick`` shrinks the two large inputs (the tests use it)."""
    names = namespace()
    comparisons = [compare(row, names) for row in ROWS]
    findings: list[Finding] = []
    for subject in SUBJECTS:
        if subject.loss == "Unified focal":
            continue
        for probe in (ignoring_equals_removing, all_ignored_is_zero):
            found = probe(subject, names)
            if found is not None:
                findings.append(found)
        findings.append(half_precision(subject, names, 1 if quick else 2))
        findings.append(stray_label_is_refused(subject, names))
        if subject.loss.startswith("Lovász"):
            images, side = (1, 512) if quick else (8, 1024)
            findings.append(lovasz_float32(subject, names, images, side))
    findings += [focal_gradient_at_certainty(who, call, names) for _, who, call in FLAT]
    findings.append(unified_focal_takes_probabilities(names))
    return {
        "schema": 1,
        "command": "python benchmarks/conformance.py measure",
        "created_utc": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M"),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in [*LIBRARIES.values(), "torch", "numpy"]
        },
        "tolerance": TOLERANCE,
        "comparisons": [asdict(c) for c in comparisons],
        "findings": [asdict(f) for f in findings],
        "absent_class": absent_class_table(names),
        "soft_target": soft_target_table(names),
    }


def generalized_dice_absent_as_rarest(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sudre's loss on the whole batch, an absent class weighted like the rarest present one, written out."""
    p, t = z.softmax(1), F.one_hot(y, z.shape[1]).movedim(-1, 1).to(z.dtype)
    dims = (0, 2, 3)
    inter, pred, truth = (p * t).sum(dims), p.sum(dims), t.sum(dims)
    weight = torch.where(truth > 0, 1 / truth.clamp(min=1) ** 2, 0)
    weight = torch.where(truth > 0, weight, weight.max())
    return 1 - 2 * (weight * inter).sum() / (weight * (pred + truth)).sum()


TITLES = {"ours": "lossatlas", "smp": "smp", "monai": "MONAI", "kornia": "kornia"}


def short(call: str) -> str:
    """A call as the page shows it: without the adapters for the target."""
    for tail in (
        "(z, y.unsqueeze(1).double())",
        "(z, y.unsqueeze(1))",
        "(z, y.unsqueeze(1))",
        "(z.float(), y)",
        "(z, y)",
        "(z, t)",
    ):
        if call.endswith(tail):
            return call.removesuffix(tail)
    return call


def wrong_findings(record: dict[str, Any], loss: str, library: str) -> list[dict[str, Any]]:
    """The properties that a library's call of this loss violates."""
    return [
        f
        for f in record["findings"]
        if f["loss"] == loss and f["library"] == library and not f["holds"]
    ]


PHRASES = {
    "ignoring": "ignored pixels still count",
    "all ignored": "all ignored gives no zero",
    "half precision": "half precision fails",
    "stray label": "stray labels pass",
    "focal, gamma < 1": "NaN gradient for γ < 1",
    "float32 at size": "float32 gradient is noise",
    "takes logits": "reads logits as probabilities",
}


def render(record: dict[str, Any]) -> str:
    """The page, in Markdown, from the record alone."""
    losses = list(dict.fromkeys([c["loss"] for c in record["comparisons"]]))
    versions = record["versions"]
    lines = [
        "# What libraries mean by Dice",
        "",
        "Does a loss of the same name compute the same number in another library? This page was generated by "
        f"`{record['command']}` and `python benchmarks/conformance.py render`; no verdict on it was typed.",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "",
        "A call *agrees* where value and gradient equal ours with default settings, to a relative "
        f"{record['tolerance']:g} in float64, on three scenes: every class in every image, a class missing from one "
        "image, a class missing from the whole batch (hard labels). "
        "It *differs* where another call of ours, named in the second "
        "table, gives its value and gradient on all three scenes: a convention, which a reader of two papers has to "
        "know. It is *wrong* where a property fails that holds under any convention.",
        "",
        "## At a glance",
        "",
        "| loss | " + " | ".join(TITLES[k] for k in LIBRARIES) + " |",
        "|---|" + "---|" * len(LIBRARIES),
    ]
    for loss in losses:
        cells = []
        for library in LIBRARIES:
            rows = [
                c for c in record["comparisons"] if c["loss"] == loss and c["library"] == library
            ]
            if not rows:
                cells.append("–")
                continue
            parts = []
            for verdict in ("agrees", "differs", "unexplained"):
                modes = list(dict.fromkeys(c["mode"] for c in rows if c["verdict"] == verdict))
                if modes:
                    parts.append(f"{verdict} ({', '.join(modes)})")
            wrong = list(
                dict.fromkeys(PHRASES[f["property"]] for f in wrong_findings(record, loss, library))
            )
            if wrong:
                parts.append("**wrong**: " + ", ".join(wrong))
            cells.append("; ".join(parts))
        lines.append(f"| {loss} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## An absent class: one word, a factor of six",
        "",
        "Four classes, a uniform prediction, a target that is all class 0: I = n/4, S = n/4 for every class, T = n for "
        "class 0. Its Dice is 2·(n/4)/(n/4 + n) = 0.4, so its loss is 0.6; everything else is what one does with the "
        "three classes that are not there.",
        "",
        "| call | loss |",
        "|---|---|",
    ]
    lines += [f"| `{short(r['call'])}` | {r['value']:.3f} |" for r in record["absent_class"]]
    lines += [
        "",
        "## A soft target, met exactly",
        "",
        "loss(p, p) for probabilities around 0.2. With I = Σ p t the linear Dice is not made for soft labels: it is "
        "least at a prediction of 0s and 1s. With TP = (S + T − Σ|p − t|)/2 it is the same loss on hard labels and 0 "
        "here; some libraries mean the one, some the other, some have a switch.",
        "",
        "| loss | library | call | loss(p, p) |",
        "|---|---|---|---|",
        *(
            f"| {r['loss']} | {TITLES[r['library']]} | `{short(r['call'])}` | {r['value']:.4f} |"
            for r in record["soft_target"]
        ),
        "",
        "## Call by call",
        "",
        "Values on the scene where a class (or, in binary mode, the foreground) is missing from one image. What is no "
        "call of a library is written out in `benchmarks/conformance.py`.",
        "",
        "| loss | their call | theirs | ours (default) | verdict | the same in ours |",
        "|---|---|---|---|---|---|",
    ]
    for c in record["comparisons"]:
        scene = list(c["values"])[1]
        v = c["values"][scene]
        verdict = c["verdict"] if not c["because"] else f"differs because: {c['because']}"
        lines.append(
            f"| {c['loss']}, {c['mode']} | `{short(c['theirs'])}` | {v['theirs']:.4f} | {v['ours']:.4f} | {verdict} "
            f"| `{short(c['reproduced_by'])}` |"
        )
    loose = [c for c in record["comparisons"] if c["tolerance"] > record["tolerance"]]
    if loose:
        lines += [
            "",
            f"{len(loose)} of these {len(record['comparisons'])} calls compute in float32 whatever they are given, or "
            f"refuse float64; they were compared to {loose[0]['tolerance']:g}.",
        ]
    lines += ["", "## Right or wrong, whatever the convention", ""]
    for key, (title, text) in PROPERTIES.items():
        found = [f for f in record["findings"] if f["property"] == key]
        lines += [
            f"### {title}",
            "",
            text,
            "",
            "| loss | library | call | holds | measured |",
            "|---|---|---|---|---|",
        ]
        for f in found:
            measured = f["measured"].replace("|", "\\|")
            lines.append(
                f"| {f['loss']} | {TITLES[f['library']]} | `{short(f['call'])}` | {'yes' if f['holds'] else '**no**'} "
                f"| {measured} |"
            )
        lines.append("")
    failed = {
        k: sum(not f["holds"] for f in record["findings"] if f["library"] == k) for k in TITLES
    }
    total = {k: sum(f["library"] == k for f in record["findings"]) for k in TITLES}
    lines += [
        "## In short",
        "",
        "Properties that fail, of those examined: "
        + ", ".join(f"{TITLES[k]} {failed[k]} of {total[k]}" for k in TITLES)
        + ". The examined calls are those of the tables above; a library is not the sum of its losses, and newer "
        "releases than the ones named here may have changed any line. The test suite runs the comparisons again at "
        "every change and fails when a verdict moves.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure or render."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["measure", "render"])
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "measure":
        args.record.parent.mkdir(parents=True, exist_ok=True)
        args.record.write_text(json.dumps(measure(), indent=1, ensure_ascii=False) + "\n")
    else:
        args.page.parent.mkdir(parents=True, exist_ok=True)
        args.page.write_text(render(json.loads(args.record.read_text())))


if __name__ == "__main__":
    main()
