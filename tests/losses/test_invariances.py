"""What must not change a loss: what ignored pixels hold, how classes are numbered, how memory is laid out."""

from __future__ import annotations

import math
from typing import Any

import torch
from cases import (
    CLASSES,
    PRIMITIVES,
    VOID,
    Spec,
    assert_equal,
    each,
    example,
    gradient,
    named,
    scenes,
    seed_of,
    void_mask,
)

from lossatlas import losses

NEGATIVE = -100


def close(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    """Of two values, or of two pairs of value and gradient."""
    torch.testing.assert_close(a, b, rtol=tolerance, atol=1e-14)


@each()
def test_what_ignored_pixels_hold_changes_nothing_and_gets_no_gradient(spec: Spec) -> None:
    for scene in scenes(spec):
        logits, target = scene.example(void=0.3)
        ignored = void_mask(logits, target)
        assert ignored.any() and not ignored.all()
        loss = scene.build(ignore_index=VOID)
        value, grad = gradient(loss, logits, target)
        with named(scene):
            assert value.isfinite()
            assert (grad[ignored] == 0).all()
        for content in (1e4, math.inf, -math.inf, math.nan):
            other = gradient(loss, logits.masked_fill(ignored, content), target)
            with named(scene, f"ignored pixels hold {content}"):
                assert_equal(other, (value, grad))


# A void region beside an object makes a boundary, the edge of the image does not.
@each(where=lambda spec: spec.family != "distance")
def test_ignoring_equals_cropping(spec: Spec) -> None:
    for scene in scenes(spec):
        logits, target = scene.example("crop", shape=(5, 3))
        void = target.clone()
        void[..., 3:, :] = VOID
        value, grad = gradient(scene.build(ignore_index=VOID), logits, void)
        expected, inner = gradient(scene.build(), logits[..., :3, :], target[..., :3, :])
        with named(scene):
            close(value, expected)
            close(grad[..., :3, :], inner)
            assert (grad[..., 3:, :] == 0).all()


def test_a_single_void_pixel_is_left_out_whatever_its_logit_holds() -> None:
    for mode in ("multiclass", "binary"):
        logits, target = example(mode, shape=(5, 3), seed=1)
        target[0, ..., 0, 0] = VOID
        for name in ("ce", "focal", "ohem_ce", "dice", "lovasz_softmax"):
            loss = losses.build(name, mode=mode, ignore_index=VOID)
            expected, _ = gradient(loss, logits, target)
            for held in (torch.nan, torch.inf, 1e30):
                spoilt = logits.clone()
                spoilt[0, :, 0, 0] = held
                value, grad = gradient(loss, spoilt, target)
                assert torch.equal(value, expected), (mode, name, held)
                assert (grad[0, :, 0, 0] == 0).all() and grad.isfinite().all()


def test_a_void_pixel_in_a_target_laid_out_otherwise_is_left_out() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 9, 6, 5, generator=g, dtype=torch.float64)
    target = torch.randint(0, 9, (6, 5, 4), generator=g).permute(2, 0, 1)  # images last in memory
    target[0, 0, 0] = VOID
    for name in ("ce", "dice", "dice_ce", "lovasz_softmax"):
        loss = losses.build(name, ignore_index=VOID)
        close(loss(logits, target), loss(logits, target.contiguous()))


@each("ce", "dice", "lovasz_softmax")
def test_any_integer_serves_as_ignore_index_even_that_of_a_class(spec: Spec) -> None:
    """ignore_index=0 leaves the pixels labelled 0 out; their logits still matter elsewhere."""
    for mode in ("multiclass", "binary"):
        logits, target = example(mode, seed=3)
        expected = spec.build(mode, ignore_index=VOID)(
            logits, target.masked_fill(target == 0, VOID)
        )
        for void in (0, NEGATIVE):
            ignored = target.masked_fill(target == 0, void)
            with named(mode, void):
                close(spec.build(mode, ignore_index=void)(logits, ignored), expected)


@each(*PRIMITIVES)
def test_ignore_index_without_ignored_pixels_changes_nothing(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        for dtype in (torch.float32, torch.float64):
            logits, target = scene.example("none", shape=(13, 9), dtype=dtype)
            expected = gradient(scene.build(), logits, target)
            with named(scene, dtype):
                assert_equal(gradient(scene.build(ignore_index=VOID), logits, target), expected)


# Class 0 is the background by definition.
@each(
    where=lambda spec: (
        spec.name not in ("unified_focal", "balanced_ce", "nnunet_dice_ce", "sam2_focal_dice")
    )
)
def test_renumbering_the_classes_changes_nothing(spec: Spec) -> None:
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])  # new channel k is old channel order[k]
    for scene in scenes(spec, modes=("multiclass", "multilabel")):
        logits, target = scene.example("permute")
        if target.ndim == logits.ndim:
            moved = target[:, order]
        else:
            moved = torch.empty_like(target)
            for new, old in enumerate(order.tolist()):
                moved[target == old] = new
        # A weighted name needs its weights, which move with the classes.
        for w in (weight,) if spec.weighted else (None, weight):
            value, grad = gradient(scene.build(weight=w), logits, target)
            renumbered = scene.build(weight=None if w is None else w[order])
            other = gradient(renumbered, logits[:, order], moved)
            with named(scene, "unweighted" if w is None else "weighted"):
                close(other, (value, grad[:, order]))


# The others look at the whole batch: to choose pixels, or to weigh classes.
@each(
    where=lambda spec: (
        spec.family == "pixel" and spec.name not in ("ohem_ce", "topk_ce", "balanced_ce")
    )
)
def test_the_sum_over_a_batch_is_the_sum_over_its_parts(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        logits, target = scene.example("split", images=3)
        loss = scene.build(reduction="sum")
        parts = loss(logits[:1], target[:1]) + loss(logits[1:], target[1:])
        with named(scene):
            close(loss(logits, target), parts)


@each(where=lambda spec: spec.family in ("region", "sort", "ratio", "distance", "skeleton"))
def test_per_image_is_the_mean_over_images(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        logits, target = scene.example("images", images=3)
        loss = scene.build(per_image=True)
        single = [scene.build()(logits[n : n + 1], target[n : n + 1]) for n in range(3)]
        with named(scene):
            close(loss(logits, target), torch.stack(single).mean())


@each()
def test_a_soft_one_hot_target_equals_the_hard_one(spec: Spec) -> None:
    for scene in scenes(spec, variants=True, kinds=("hard",)):
        weight = None
        if scene.mode != "binary":
            weight = torch.arange(1.0, CLASSES + 1, dtype=torch.float64)
        loss = scene.build(ignore_index=VOID, weight=weight)
        for void in (0.0, 0.3):
            seed = seed_of("onehot", spec.name, scene.mode)
            hard = example(scene.mode, "hard", seed=seed, void=void)
            soft = example(scene.mode, "onehot", seed=seed, void=void)
            assert soft[1].is_floating_point()
            with named(scene, f"void {void}"):
                value, grad = gradient(loss, *hard)
                other, other_grad = gradient(loss, *soft)
                close(value, other)
                close(grad, other_grad, 1e-11)


@each(*PRIMITIVES)
def test_memory_layout_does_not_matter(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        logits, target = scene.example("layout", shape=(4, 6))
        loss = scene.build()
        value, grad = gradient(loss, logits, target)
        transposed, strided = (
            [layout(x) for x in (logits, target)]
            for layout in (
                lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
                lambda x: x.repeat_interleave(2, -1)[..., ::2],
            )
        )
        layouts = {
            "channels last": (logits.to(memory_format=torch.channels_last), target),
            "transposed": transposed,
            "strided": strided,
            "channel slice": (torch.cat([logits, logits], 1)[:, : logits.shape[1]], target),
        }
        for name, (z, t) in layouts.items():
            with named(scene, name):
                assert not z.is_contiguous() or z.shape[1] == 1
                z = z.detach().requires_grad_()
                other = loss(z, t)
                close(other.detach(), value)
                close(torch.autograd.grad(other, z)[0], grad)


@each(*PRIMITIVES)
def test_any_number_of_spatial_dimensions_works(spec: Spec) -> None:
    shapes = ((), (6,), (2, 2, 2))[spec.on_grid :]  # no distances without a grid
    for scene in scenes(spec, kinds=("hard",)):
        for shape in shapes:
            logits, target = scene.example("dims", images=2 if shape else 12, shape=shape)
            value, grad = gradient(scene.build(), logits, target)
            expected = torch.as_tensor(scene.expect(logits, target))
            with named(scene, f"spatial shape {shape}"):
                assert grad.shape == logits.shape
                close(value, expected, max(spec.tolerance, 1e-12))


def test_every_integer_dtype_of_labels_and_a_boolean_mask_give_the_same() -> None:
    dtypes = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
    for mode in ("multiclass", "binary", "multilabel"):
        logits, target = example(mode, seed=6)
        for name in ("ce", "dice", "lovasz_softmax", "lovasz_hinge"):
            loss = losses.build(name, mode=mode)
            for dtype in dtypes[: 5 if mode == "multiclass" else 6]:
                with named(name, mode, dtype):
                    assert torch.equal(loss(logits, target), loss(logits, target.to(dtype)))


@each("ce", "focal", "dice", "tversky", "lovasz_softmax", "lovasz_hinge")
def test_a_binary_target_may_carry_its_channel(spec: Spec) -> None:
    logits, target = example("binary", seed=7, void=0.2)
    loss = spec.build("binary", ignore_index=VOID)
    assert torch.equal(loss(logits, target), loss(logits, target.unsqueeze(1)))
