"""The public list: names, classes, functions, parameters; what importing costs; what the wheel holds."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from lossatlas import losses

ROOT = Path(__file__).parents[2]

# In the book's order.
LIST = {
    "ce": "CrossEntropyLoss", "weighted_ce": "CrossEntropyLoss", "one_vs_all_ce": "OneVsAllCrossEntropyLoss",
    "balanced_ce": "BalancedCrossEntropyLoss", "ohem_ce": "OHEMCrossEntropyLoss",
    "topk_ce": "TopKCrossEntropyLoss", "logit_adjusted_ce": "LogitAdjustedCrossEntropyLoss",
    "focal": "FocalLoss", "poly1": "Poly1Loss", "asymmetric": "AsymmetricLoss", "dice": "DiceLoss",
    "dice_squared": "DiceLoss", "weighted_dice": "DiceLoss", "inverse_dice": "InverseDiceLoss",
    "generalized_dice": "GeneralizedDiceLoss", "log_cosh_dice": "LogCoshDiceLoss", "jaccard": "JaccardLoss",
    "tversky": "TverskyLoss", "focal_tversky": "FocalTverskyLoss", "dice_semimetric": "DiceSemimetricLoss",
    "lovasz_softmax": "LovaszSoftmaxLoss", "lovasz_hinge": "LovaszHingeLoss",
    "unified_focal": "UnifiedFocalLoss", "boundary": "BoundaryLoss", "hausdorff": "HausdorffLoss",
    "soft_cldice": "SoftClDiceLoss", "dice_ce": "CompoundLoss", "dice_focal": "CompoundLoss",
    "dice_topk": "CompoundLoss", "ce_lovasz": "CompoundLoss", "nnunet_dice_ce": "CompoundLoss",
    "sam2_focal_dice": "CompoundLoss",
}  # fmt: skip
COMMON = {"mode", "weight", "ignore_index", "reduction"}
REGION = {"per_image", "classes"}


def test_every_name_of_the_list_is_registered_in_the_order_of_the_book() -> None:
    assert losses.names() == list(LIST)


@pytest.mark.parametrize("name", LIST)
def test_a_name_builds_its_class_and_takes_the_common_keywords(name: str) -> None:
    needs = {"weight": [1.0, 2.0]} if name.startswith("weighted") else {}
    loss = losses.build(name, **needs)
    assert type(loss).__name__ == LIST[name]
    assert isinstance(loss, torch.nn.Module)
    known = losses.parameters(name)
    assert known.keys() >= COMMON
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in known.values())
    if "Dice" in LIST[name] or "Lovasz" in LIST[name] or "dice" in name:
        assert known.keys() >= REGION
    assert known["ignore_index"].default is None
    assert known["reduction"].default == "mean"
    assert known["mode"].default == (
        "binary" if name in ("lovasz_hinge", "sam2_focal_dice") else "multiclass"
    )


def test_an_unknown_name_lists_the_near_matches() -> None:
    for unknown, near in (("tverski", "tversky"), ("lovasz_sofmax", "lovasz_softmax")):
        with pytest.raises(ValueError, match=near):
            losses.build(unknown)
    with pytest.raises(TypeError):
        losses.build(3)


def test_a_weighted_name_without_weights_says_where_to_get_them() -> None:
    for name in ("weighted_ce", "weighted_dice"):
        with pytest.raises(TypeError, match=r"weight.*losses\.weights"):
            losses.build(name)


def test_every_class_has_a_function_of_the_same_name() -> None:
    for name in sorted(set(LIST.values()) - {"CompoundLoss"}):
        # "TopKCrossEntropyLoss" -> "topk_cross_entropy_loss", "OHEMCrossEntropyLoss" -> "ohem_cross_entropy_loss"
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
        function = getattr(losses.functional, snake.replace("top_k", "topk"))
        common = {"ignore_index": 0} | ({"mode": "binary"} if "Hinge" in name else {})
        channels = 1 if "mode" in common else 3
        g = torch.Generator().manual_seed(0)
        logits = torch.randn(2, channels, 4, 4, generator=g)
        target = torch.randint(0, max(channels, 2), (2, 4, 4), generator=g)
        expected = getattr(losses, name)(**common)(logits, target)
        assert torch.equal(function(logits, target, **common), expected)


BASES = ("SegmentationLoss", "PixelLoss", "RegionLoss")


def public() -> list[type]:
    return [getattr(losses, n) for n in losses.__all__ if inspect.isclass(getattr(losses, n))]


@pytest.mark.parametrize("cls", public(), ids=lambda c: c.__name__)
def test_every_public_class_is_documented_with_formula_limits_source_and_example(cls: type) -> None:
    text = " ".join((cls.__doc__ or "").split())
    assert text
    if cls.__name__ in BASES:  # formula, limits and source are those of the losses
        return
    for parameter in inspect.signature(cls).parameters:
        assert re.search(rf"\b{parameter}\b", text), parameter
    assert ".. math::" in text or "Σ" in text
    assert ">>>" in text
    if cls.__name__ != "CompoundLoss":
        assert "Source" in text
        assert "absent" in text.lower()
        assert "all-ignored" in text or "all ignored" in text


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = (
    "scipy", "segmentation_models_pytorch", "pandas", "matplotlib", "sklearn", "lightning_fabric", "lightning",
    "sympy.plotting", "monai", "kornia", "torchvision", "pydantic", "papermill", "PIL", "yaml", "timm",
)  # fmt: skip


def test_importing_the_losses_pulls_torch_and_nothing_else() -> None:
    out = run(
        "import sys, torch; before = set(sys.modules); import lossatlas.losses; "
        "print('\\n'.join(sorted(set(sys.modules) - before)))"
    )
    new = [m for m in out.split() if not m.startswith("lossatlas")]
    assert not [m for m in new if m.split(".")[0] in HEAVY]
    ours = [m for m in out.split() if m.startswith("lossatlas")]
    assert all(m == "lossatlas" or m.startswith("lossatlas.losses") for m in ours)
    third_party = {m.split(".")[0] for m in new} - set(sys.stdlib_module_names) - {"torch", "numpy"}
    assert not third_party


def test_the_wheel_installed_alone_trains_with_every_loss(tmp_path: Path) -> None:
    """The wheel, unpacked where only torch, numpy and what torch needs can be imported."""
    pytest.importorskip("hatchling")
    import hatchling.build

    with contextlib.chdir(ROOT):
        name = hatchling.build.build_wheel(str(tmp_path))
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / name) as wheel:
        ours_alone = ("tests/", "notebooks/", "results/")
        assert not [name for name in wheel.namelist() if name.startswith(ours_alone)]
        wheel.extractall(site)
    code = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(  # the extras are not installed
    lambda cls, name, *rest: None if name.split(".")[0] in {HEAVY!r} else find(name, *rest)
)
sys.path.insert(0, {str(site)!r})
import torch, lossatlas.losses as losses
assert losses.__file__.startswith({str(site)!r}), losses.__file__
z = torch.randn(2, 3, 8, 8, requires_grad=True)
y = torch.randint(0, 3, (2, 8, 8))
for name in losses.names():
    if name in ("boundary", "hausdorff"):
        try:
            losses.build(name)(z, y)
        except ImportError as error:
            assert "pip install scipy" in str(error)
            continue
        raise SystemExit("distance maps without SciPy?")
    weight = dict(weight=[1.0, 2.0, 3.0]) if name.startswith("weighted") else dict()
    losses.build(name, mode="multiclass", **weight)(z, y).backward()
maps = torch.randn(2, 3, 8, 8)
losses.build("boundary")(z, y, distance=maps).backward()
losses.build("hausdorff")(z, y, target_distance=maps, prediction_distance=maps).backward()
print("trained")
"""
    assert run(code).strip() == "trained"
