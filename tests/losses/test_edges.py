"""The corners: one pixel, one class, nothing at all, everything ignored, perfect, all wrong, huge logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import CLASSES, SPECS, VOID, Spec, combinations, example, gradient, have, label, seed_of

from lossatlas import losses

DEFAULTS = [pytest.param(*c, id=label(*c)) for c in combinations(SPECS, variants=False)]
HARD = [c for c in DEFAULTS if c.values[3] == "hard"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def confident(
    mode: str, target: torch.Tensor, size: float, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Logits of +-size (multiclass: size and 0) that predict the target."""
    if mode == "multiclass":
        return size * torch.nn.functional.one_hot(target, CLASSES).movedim(-1, 1).to(dtype)
    z = size * (2 * target.to(dtype) - 1)
    return z.unsqueeze(1) if mode == "binary" else z


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), DEFAULTS)
def test_an_all_ignored_batch_has_loss_0_and_gradient_0(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    for dtype, reduction in (
        (torch.float16, "mean"),
        (torch.float32, "sum"),
        (torch.float64, "none"),
    ):
        logits, target = example(mode, kind, void=1.0, dtype=dtype)
        assert (target == VOID).all()
        options = {**params, "reduction": reduction if reduction in spec.reductions else "mean"}
        value, grad = gradient(spec.build(mode, ignore_index=VOID, **options), logits, target)
        assert (value == 0).all(), reduction
        assert (grad == 0).all(), reduction


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), DEFAULTS)
def test_an_empty_batch_has_loss_0_and_gradient_0(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    empty = [
        tuple(x[:0] for x in example(mode, kind, shape=(3, 2))),
        example(mode, kind, shape=(0, 4)),
        example(mode, kind, shape=(0,)),
        example(mode, kind, shape=(4, 0)),
    ]
    for logits, target in empty:
        value, grad = gradient(spec.build(mode, **params), logits, target)
        assert value.shape == () and value == 0, logits.shape
        assert grad.shape == logits.shape and (grad == 0).all(), logits.shape


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"), [c for c in HARD if c.values[0].is_region]
)
def test_an_all_ignored_image_leaves_the_per_image_mean(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, images=3, seed=seed_of(spec.name))
    void = target.clone()
    void[1] = VOID
    loss = spec.build(mode, ignore_index=VOID, per_image=True, **params)
    torch.testing.assert_close(loss(logits, void), loss(logits[[0, 2]], target[[0, 2]]))


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), DEFAULTS)
def test_a_single_pixel_works(spec: Spec, params: dict[str, Any], mode: str, kind: str) -> None:
    for seed in range(2):
        logits, target = example(mode, kind, images=1, shape=(1,), seed=seed)
        value, grad = gradient(spec.build(mode, **params), logits, target)
        assert value.item() == pytest.approx(
            spec.expect(logits, target, mode, **params), rel=spec.tolerance, abs=1e-13
        )
        assert grad.isfinite().all()


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_a_batch_of_one_class_works(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    for constant in (0, 1):
        logits, target = example(mode, kind, seed=3)
        target = torch.full_like(target, constant)
        value, grad = gradient(spec.build(mode, **params), logits, target)
        assert value.item() == pytest.approx(
            spec.expect(logits, target, mode, **params), rel=spec.tolerance, abs=1e-13
        )
        assert grad.isfinite().all()


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_a_perfect_prediction_costs_nothing(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    if params.get("label_smoothing"):
        pytest.skip("a smoothed label is never met by a certain prediction")
    if spec.name == "boundary":
        pytest.skip("the boundary loss is linear in p: least, and negative, at the target")
    _, target = example(mode, kind, seed=5)
    if mode == "multilabel":
        target[:, :, 0, 0], target[:, :, 0, 1] = 1, 0
    for dtype in DTYPES:
        for size in (30.0, 1e4):
            logits = confident(mode, target, size, dtype)
            if spec.name == "lovasz_hinge" and mode == "multiclass":
                logits = 2 * logits - size  # a hinge wants the other classes below -1
            value, grad = gradient(spec.build(mode, **params), logits, target)
            # A loss with a root near zero, (1 - TI)^(1/gamma), turns a rounding of 1e-13 into 1e-8.
            root = spec.name in ("focal_tversky", "unified_focal")
            assert abs(value.item()) < (1e-5 if root else 1e-6), (dtype, size)
            assert grad.isfinite().all(), (dtype, size)


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_a_wholly_wrong_prediction_is_finite_and_worse_than_a_perfect_one(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    _, target = example(mode, kind, seed=5)
    loss = spec.build(mode, **params)
    for dtype in DTYPES:
        right = confident(mode, target, 1e4, dtype)
        # multiclass: all the mass on one wrong class
        wrong = (
            confident(mode, (target + 1) % CLASSES, 1e4, dtype) if mode == "multiclass" else -right
        )
        value, grad = gradient(loss, wrong, target)
        assert value.isfinite() and grad.isfinite().all(), dtype
        assert value > loss(right, target), dtype


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), DEFAULTS)
def test_logits_of_ten_thousand_give_finite_values_and_gradients_in_every_dtype(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    for dtype in DTYPES:
        for seed in range(2):
            logits, target = example(mode, kind, seed=seed, void=0.1)
            logits = (1e4 * logits.sign()).to(dtype)
            if seed:  # some pixels undecided beside the huge ones
                logits[..., 0] = 0
            value, grad = gradient(spec.build(mode, ignore_index=VOID, **params), logits, target)
            assert value.isfinite(), dtype
            assert grad.isfinite().all(), dtype
            assert grad.dtype == dtype


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"),
    [c for c in HARD if c.values[0].is_region and c.values[2] != "binary"],
)
def test_an_absent_class_counts_as_the_classes_argument_says(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, seed=6)
    if mode == "multiclass":
        target[target == 2] = 0
    else:
        target[:, 2] = 0
    for classes in (None, "present", "all", [1, 2]):
        value, grad = gradient(spec.build(mode, classes=classes, **params), logits, target)
        assert value.item() == pytest.approx(
            spec.expect(logits, target, mode, classes=classes, **params), rel=spec.tolerance
        )
        assert grad.isfinite().all()


def test_an_absent_class_under_a_uniform_prediction_counts_0_6_or_0_9() -> None:
    """Four classes, all truth in class 0: its Dice loss is 0.6; with the three absent ones at 1 the mean is 0.9."""
    logits, target = torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    assert losses.build("dice")(logits, target).item() == pytest.approx(0.6)
    assert losses.build("dice", classes="all")(logits, target).item() == pytest.approx(0.9)


def test_an_empty_mask_in_binary_mode_costs_as_documented() -> None:
    logits, target = torch.zeros(1, 1, 4), torch.zeros(1, 4, dtype=torch.long)
    # S = 2, T = 0: 1 without smoothing and without gradient, 1 - 1/(2 + 1) with smooth=1
    value, grad = gradient(losses.build("dice", mode="binary"), logits, target)
    assert value == 1 and (grad == 0).all()
    assert losses.build("dice", mode="binary", smooth=1.0)(logits, target).item() == pytest.approx(
        2 / 3
    )
    assert losses.build("dice", mode="binary", classes="present")(logits, target).item() == 0


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_a_target_without_gradient_and_logits_without_gradient_are_fine(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind)
    assert not spec.build(mode, **params)(logits, target).requires_grad
    with torch.inference_mode():
        assert spec.build(mode, **params)(logits, target).isfinite()


@pytest.mark.parametrize("mode", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("name", have("dice_squared", "dice_semimetric", "lovasz_softmax"))
def test_a_soft_target_that_is_met_costs_nothing_where_the_definition_promises_it(
    name: str, mode: str
) -> None:
    """V-Net Dice, Dice semimetric and the Lovasz losses vanish at p = t for any t in (0, 1)."""
    logits, _ = example(mode, seed=1)
    target = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
    assert losses.build(name, mode=mode)(logits, target).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", have("ce", "focal", "dice", "jaccard", "tversky"))
def test_where_a_met_soft_target_costs_something_the_docstring_says_so(name: str) -> None:
    logits, _ = example("binary", seed=1)
    loss = losses.build(name, mode="binary")
    assert loss(logits, logits.sigmoid()) > 0.05
    text = type(loss).__doc__
    assert "L(t, t)" in text or "soft" in text.lower()
