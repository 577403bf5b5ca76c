"""The corners: one pixel, one class, nothing at all, everything ignored, perfect, all wrong, huge logits."""

from __future__ import annotations

import pytest
import torch
from cases import (
    CLASSES,
    MODES,
    PRIMITIVES,
    SPECS,
    VOID,
    Scene,
    Spec,
    each,
    example,
    gradient,
    named,
    scenes,
    seed_of,
)

from lossatlas import losses

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def confident(
    mode: str, target: torch.Tensor, size: float, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Logits of +-size (multiclass: size and 0) that predict the target."""
    if mode == "multiclass":
        return size * torch.nn.functional.one_hot(target, CLASSES).movedim(-1, 1).to(dtype)
    z = size * (2 * target.to(dtype) - 1)
    return z.unsqueeze(1) if mode == "binary" else z


@each()
def test_an_all_ignored_batch_has_loss_0_and_gradient_0(spec: Spec) -> None:
    dtypes = {"mean": torch.float16, "sum": torch.float32, "none": torch.float64}
    for scene in scenes(spec):
        for reduction in spec.reductions:
            logits, target = example(scene.mode, scene.kind, void=1.0, dtype=dtypes[reduction])
            assert (target == VOID).all()
            loss = scene.build(ignore_index=VOID, reduction=reduction)
            value, grad = gradient(loss, logits, target)
            with named(scene, reduction):
                assert (value == 0).all()
                assert (grad == 0).all()


@each()
def test_an_empty_batch_has_loss_0_and_gradient_0(spec: Spec) -> None:
    for scene in scenes(spec):
        empty = [
            tuple(x[:0] for x in example(scene.mode, scene.kind, shape=(3, 2))),
            example(scene.mode, scene.kind, shape=(0, 4)),
            example(scene.mode, scene.kind, shape=(0,)),
            example(scene.mode, scene.kind, shape=(4, 0)),
        ]
        for logits, target in empty:
            with named(scene, tuple(logits.shape)):
                value, grad = gradient(scene.build(), logits, target)
                assert value.shape == () and value == 0
                assert grad.shape == logits.shape and (grad == 0).all()


@each(*PRIMITIVES, where=lambda spec: spec.is_region)
def test_an_all_ignored_image_leaves_the_per_image_mean(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        logits, target = example(scene.mode, images=3, seed=seed_of(spec.name))
        void = target.clone()
        void[1] = VOID
        loss = scene.build(ignore_index=VOID, per_image=True)
        with named(scene):
            torch.testing.assert_close(loss(logits, void), loss(logits[[0, 2]], target[[0, 2]]))


def assert_oracle(
    scene: Scene, logits: torch.Tensor, target: torch.Tensor, **options: object
) -> None:
    """The oracle's value, and a finite gradient."""
    value, grad = gradient(scene.build(**options), logits, target)
    expected = scene.expect(logits, target, **options)
    assert value.item() == pytest.approx(expected, rel=scene.spec.tolerance, abs=1e-13)
    assert grad.isfinite().all()


@each()
def test_a_single_pixel_and_a_batch_of_one_class_cost_what_the_oracle_says(spec: Spec) -> None:
    for scene in scenes(spec):
        for seed in range(2):
            pixel = example(scene.mode, scene.kind, images=1, shape=(1,), seed=seed)
            with named(scene, "a single pixel", f"seed {seed}"):
                assert_oracle(scene, *pixel)
    for scene in scenes(spec, kinds=("hard",)):
        for constant in (0, 1):
            logits, target = example(scene.mode, seed=3)
            with named(scene, f"only class {constant}"):
                assert_oracle(scene, logits, torch.full_like(target, constant))


@each(where=lambda spec: spec.name != "boundary")  # linear in p: least, and negative, at the target
def test_a_perfect_prediction_costs_nothing(spec: Spec) -> None:
    # A loss with a root near zero, (1 - TI)^(1/gamma), turns a rounding of 1e-13 into 1e-8.
    limit = 1e-5 if spec.name in ("focal_tversky", "unified_focal") else 1e-6
    for scene in scenes(spec, kinds=("hard",)):
        _, target = example(scene.mode, seed=5)
        if scene.mode == "multilabel":
            target[:, :, 0, 0], target[:, :, 0, 1] = 1, 0
        for dtype in DTYPES:
            for size in (30.0, 1e4):
                logits = confident(scene.mode, target, size, dtype)
                if spec.name == "lovasz_hinge" and scene.mode == "multiclass":
                    logits = 2 * logits - size  # a hinge wants the other classes below -1
                value, grad = gradient(scene.build(), logits, target)
                with named(scene, dtype, f"logits of {size:g}"):
                    assert abs(value.item()) < limit
                    assert grad.isfinite().all()


@each()
def test_a_wholly_wrong_prediction_is_finite_and_worse_than_a_perfect_one(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        _, target = example(scene.mode, seed=5)
        loss = scene.build()
        for dtype in DTYPES:
            right = confident(scene.mode, target, 1e4, dtype)
            if scene.mode == "multiclass":  # all the mass on one wrong class
                wrong = confident(scene.mode, (target + 1) % CLASSES, 1e4, dtype)
            else:
                wrong = -right
            value, grad = gradient(loss, wrong, target)
            with named(scene, dtype):
                assert value.isfinite() and grad.isfinite().all()
                assert value > loss(right, target)


@each()
def test_logits_up_to_ten_thousand_give_finite_values_and_gradients_in_every_dtype(
    spec: Spec,
) -> None:
    """100 as well: its exponential is the first that float32 does not hold, if nothing is subtracted."""
    for scene in scenes(spec):
        loss = scene.build(ignore_index=VOID)
        for dtype in DTYPES:
            for size, undecided in ((1e4, False), (1e4, True), (100, False)):
                logits, target = example(scene.mode, scene.kind, seed=int(undecided), void=0.1)
                logits = (size * logits.sign()).to(dtype)
                if undecided:  # some pixels, beside the huge ones
                    logits[..., 0] = 0
                value, grad = gradient(loss, logits, target)
                with named(scene, dtype, f"logits of {size:g}, undecided pixels: {undecided}"):
                    assert value.isfinite()
                    assert grad.isfinite().all()
                    assert grad.dtype == dtype


@each(where=lambda spec: spec.is_region)
def test_an_absent_class_counts_as_the_classes_argument_says(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",), modes=("multiclass", "multilabel")):
        logits, target = example(scene.mode, seed=6)
        if scene.mode == "multiclass":
            target[target == 2] = 0
        else:
            target[:, 2] = 0
        for classes in (None, "present", "all", [1, 2]):
            with named(scene, f"classes={classes}"):
                assert_oracle(scene, logits, target, classes=classes)


def test_an_absent_class_under_a_uniform_prediction_counts_0_6_or_0_9() -> None:
    """Four classes, all truth in class 0: its Dice loss is 0.6; with the three absent ones at 1 the mean is 0.9."""
    logits, target = torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 8, dtype=torch.long)
    assert losses.build("dice")(logits, target).item() == pytest.approx(0.6)
    assert losses.build("dice", classes="all")(logits, target).item() == pytest.approx(0.9)


def test_an_empty_mask_in_binary_mode_costs_as_documented() -> None:
    logits, target = torch.zeros(1, 1, 4), torch.zeros(1, 4, dtype=torch.long)
    # S = 2, T = 0: 1 without smoothing and without gradient, 1 - 1/(2 + 1) with smooth=1
    value, grad = gradient(losses.DiceLoss(mode="binary"), logits, target)
    assert value == 1 and (grad == 0).all()
    smooth = losses.DiceLoss(mode="binary", smooth=1.0)
    assert smooth(logits, target).item() == pytest.approx(2 / 3)
    assert losses.DiceLoss(mode="binary", classes="present")(logits, target).item() == 0


def test_logits_without_gradient_and_inference_mode_are_fine() -> None:
    for spec in SPECS.values():
        for scene in scenes(spec, kinds=("hard",)):
            logits, target = example(scene.mode)
            with named(scene), torch.inference_mode():
                assert scene.build()(logits, target).isfinite()
            with named(scene):
                assert not scene.build()(logits, target).requires_grad


@each("dice_squared", "dice_semimetric", "lovasz_softmax")
def test_a_soft_target_that_is_met_costs_nothing_where_the_definition_promises_it(
    spec: Spec,
) -> None:
    """V-Net Dice, Dice semimetric and the Lovasz losses vanish at p = t for any t in (0, 1)."""
    for mode in MODES:
        logits, _ = example(mode, seed=1)
        target = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
        with named(mode):
            assert spec.build(mode)(logits, target).item() == pytest.approx(0, abs=1e-12)


@each("ce", "focal", "dice", "jaccard", "tversky")
def test_where_a_met_soft_target_costs_something_the_docstring_says_so(spec: Spec) -> None:
    logits, _ = example("binary", seed=1)
    loss = spec.build("binary")
    assert loss(logits, logits.sigmoid()) > 0.05
    text = type(loss).__doc__ or ""
    assert "L(t, t)" in text or "soft" in text.lower()


@pytest.mark.parametrize(
    ("mode", "prior"),
    [
        ("multiclass", [1.0, 1e-60]),
        ("multiclass", [1e60, 1.0]),
        ("binary", [1 - 1e-12]),
        ("binary", [1.0, 1e-60]),
        ("multilabel", [1e-60, 0.5]),
    ],
)
def test_a_prior_that_float32_cannot_hold_has_its_logarithm(mode: str, prior: list[float]) -> None:
    logits = torch.zeros(1, 1 if mode == "binary" else 2, 3)
    target = torch.zeros(1, 2, 3) if mode == "multilabel" else torch.zeros(1, 3).long()
    loss = losses.LogitAdjustedCrossEntropyLoss(mode=mode, prior=prior)
    for label in (0, 1):
        value, grad = gradient(loss, logits, target + label)
        assert value.isfinite() and grad.isfinite().all()
        expected = loss(logits.double(), target + label)
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_class_weights_that_float32_cannot_hold_are_refused() -> None:
    for wrong in ([1e39, 1.0], torch.tensor([1.0, 1e-60], dtype=torch.float64)):
        for name, key in (("ce", "weight"), ("dice", "weight"), ("focal", "alpha")):
            with pytest.raises(ValueError, match=f"{key} must be numbers that float32 holds"):
                losses.build(name, **{key: wrong})


def test_one_alpha_in_a_list_is_refused_where_it_could_mean_two_things() -> None:
    for name in ("focal", "dice_focal", "sam2_focal_dice"):
        for one in ([0.25], torch.tensor([0.25])):
            told = r"alpha must be a number or \(background, foreground\)"
            with pytest.raises(ValueError, match=told):
                losses.build(name, mode="binary", alpha=one)
        losses.build(name, mode="binary", alpha=[0.75, 0.25])
        losses.build(name, mode="binary", alpha=torch.tensor(0.25))
