"""What must not change a loss: what ignored pixels hold, how classes are numbered, how memory is laid out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cases import (
    CLASSES,
    SPECS,
    VOID,
    Spec,
    combinations,
    example,
    gradient,
    have,
    label,
    seed_of,
    void_mask,
)

from lossatlas import losses

DEFAULTS = [pytest.param(*c, id=label(*c)) for c in combinations(SPECS, variants=False)]
HARD = [c for c in DEFAULTS if c.values[3] == "hard"]
NEGATIVE = -100


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=1e-14)


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), DEFAULTS)
def test_what_ignored_pixels_hold_changes_nothing_and_gets_no_gradient(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, seed=seed_of(spec.name, mode), void=0.3)
    ignored = void_mask(logits, target)
    assert ignored.any() and not ignored.all()
    loss = spec.build(mode, ignore_index=VOID, **params)
    value, grad = gradient(loss, logits, target)
    assert value.isfinite()
    assert (grad[ignored] == 0).all()
    for content in (1e4, math.inf, -math.inf, math.nan):
        other_value, other_grad = gradient(loss, logits.masked_fill(ignored, content), target)
        assert torch.equal(value, other_value), content
        assert torch.equal(grad, other_grad), content


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), DEFAULTS)
def test_ignoring_equals_cropping(spec: Spec, params: dict[str, Any], mode: str, kind: str) -> None:
    if spec.family == "distance":
        pytest.skip(
            "a void region beside an object makes a boundary, the edge of the image does not"
        )
    logits, target = example(mode, kind, seed=seed_of("crop", spec.name, mode, kind), shape=(5, 3))
    void = target.clone()
    void[..., 3:, :] = VOID
    value, grad = gradient(spec.build(mode, ignore_index=VOID, **params), logits, void)
    expected, inner = gradient(spec.build(mode, **params), logits[..., :3, :], target[..., :3, :])
    close(value, expected)
    close(grad[..., :3, :], inner)
    assert (grad[..., 3:, :] == 0).all()


@pytest.mark.parametrize("index", [VOID, NEGATIVE])
@pytest.mark.parametrize("mode", ["multiclass", "binary"])
def test_any_integer_serves_as_ignore_index(mode: str, index: int) -> None:
    logits, target = example(mode, void=0.3, seed=1)
    moved = torch.where(target == VOID, index, target)
    close(
        losses.build("dice", mode=mode, ignore_index=index)(logits, moved),
        losses.build("dice", mode=mode, ignore_index=VOID)(logits, target),
    )


@pytest.mark.parametrize("name", ["ce", "dice", "lovasz_softmax"])
def test_a_class_can_be_the_ignored_one(name: str) -> None:
    """ignore_index=0 leaves the pixels labelled 0 out; their logits still matter elsewhere."""
    logits, target = example("multiclass", seed=3)
    as_void = torch.where(target == 0, VOID, target)
    close(
        losses.build(name, ignore_index=0)(logits, target),
        losses.build(name, ignore_index=VOID)(logits, as_void),
    )


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_ignore_index_without_ignored_pixels_changes_nothing(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, seed=seed_of("none", spec.name, mode, kind))
    value, grad = gradient(spec.build(mode, **params), logits, target)
    other_value, other_grad = gradient(
        spec.build(mode, ignore_index=VOID, **params), logits, target
    )
    close(value, other_value)
    close(grad, other_grad)


def permutable(spec: Spec, params: dict[str, Any]) -> bool:
    """Class 0 is the background for alpha, for "positives" and for the asymmetric losses."""
    return "alpha" not in params.keys() - {"beta"} or spec.name.endswith("tversky")


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"),
    [
        c
        for c in DEFAULTS
        if c.values[2] != "binary"
        and "normalizer" not in c.values[1]
        and permutable(c.values[0], c.values[1])
    ],
)
def test_renumbering_the_classes_changes_nothing(
    spec: Spec, params: dict[str, Any], mode: str, kind: str, weighted: bool
) -> None:
    if spec.name in BACKGROUND_IS_SPECIAL:
        pytest.skip("class 0 is the background by definition")
    if spec.weighted and not weighted:
        pytest.skip("needs its weights, which move with the classes")
    logits, target = example(mode, kind, seed=seed_of("permute", spec.name, mode, kind))
    order = torch.tensor([2, 0, 3, 1])  # new channel k is old channel order[k]
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64) if weighted else None
    if target.ndim == logits.ndim:
        moved = target[:, order]
    else:
        moved = torch.empty_like(target)
        for new, old in enumerate(order.tolist()):
            moved[target == old] = new
    value, grad = gradient(spec.build(mode, weight=weight, **params), logits, target)
    other, other_grad = gradient(
        spec.build(mode, weight=None if weight is None else weight[order], **params),
        logits[:, order],
        moved,
    )
    close(value, other)
    close(grad[:, order], other_grad)


BACKGROUND_IS_SPECIAL = {"unified_focal", "balanced_ce"}


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_the_order_of_pixels_and_images_does_not_matter(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    if spec.family == "distance":
        pytest.skip("distances live on the grid")
    logits, target = example(mode, kind, seed=seed_of("shuffle", spec.name, mode, kind), shape=(6,))
    pixels, images = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([1, 0])
    value, grad = gradient(spec.build(mode, **params), logits, target)
    other, other_grad = gradient(
        spec.build(mode, **params), logits[images][..., pixels], target[images][..., pixels]
    )
    close(value, other)
    close(grad[images][..., pixels], other_grad)


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"), [c for c in HARD if c.values[0].family == "pixel"]
)
def test_the_sum_over_a_batch_is_the_sum_over_its_parts(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    if spec.name in SELECTS:
        pytest.skip("the selection looks at the whole batch")
    logits, target = example(mode, kind, seed=seed_of("split", spec.name, mode, kind), images=3)
    loss = spec.build(mode, reduction="sum", **params)
    close(loss(logits, target), loss(logits[:1], target[:1]) + loss(logits[1:], target[1:]))


SELECTS = {"ohem_ce", "topk_ce", "balanced_ce"}


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"),
    [c for c in HARD if c.values[0].family in ("region", "sort", "ratio", "distance")],
)
def test_per_image_is_the_mean_over_images(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, seed=seed_of("images", spec.name, mode, kind), images=3)
    loss = spec.build(mode, per_image=True, **params)
    single = [spec.build(mode, **params)(logits[n : n + 1], target[n : n + 1]) for n in range(3)]
    close(loss(logits, target), torch.stack(single).mean())


@pytest.mark.parametrize(
    ("spec", "params", "mode", "kind"), [c for c in DEFAULTS if c.values[3] == "hard"]
)
def test_a_soft_one_hot_target_equals_the_hard_one(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    if not spec.soft:
        pytest.skip("takes hard labels only")
    for own in spec.variants:
        for void in (0.0, 0.3):
            seed = seed_of("onehot", spec.name, mode)
            hard = example(mode, "hard", seed=seed, void=void)
            soft = example(mode, "onehot", seed=seed, void=void)
            assert soft[1].is_floating_point()
            weight = (
                torch.arange(1.0, CLASSES + 1, dtype=torch.float64) if mode != "binary" else None
            )
            loss = spec.build(mode, ignore_index=VOID, weight=weight, **own)
            value, grad = gradient(loss, *hard)
            other, other_grad = gradient(loss, *soft)
            close(value, other)
            close(grad, other_grad, 1e-11)


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_memory_layout_does_not_matter(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(
        mode, kind, seed=seed_of("layout", spec.name, mode, kind), shape=(4, 6)
    )
    loss = spec.build(mode, **params)
    value, grad = gradient(loss, logits, target)
    layouts = {
        "channels last": (logits.to(memory_format=torch.channels_last), target),
        "transposed": (
            logits.transpose(-1, -2).contiguous().transpose(-1, -2),
            target.transpose(-1, -2).contiguous().transpose(-1, -2),
        ),
        "strided": (
            logits.repeat_interleave(2, -1)[..., ::2],
            target.repeat_interleave(2, -1)[..., ::2],
        ),
        "channel slice": (torch.cat([logits, logits], 1)[:, : logits.shape[1]], target),
    }
    for name, (z, t) in layouts.items():
        assert not z.is_contiguous() or z.shape[1] == 1, name
        z = z.detach().requires_grad_()
        other = loss(z, t)
        close(other.detach(), value)
        close(torch.autograd.grad(other, z)[0], grad)


@pytest.mark.parametrize("shape", [(), (6,), (2, 2, 2)], ids=["0-d", "1-d", "3-d"])
@pytest.mark.parametrize(("spec", "params", "mode", "kind"), HARD)
def test_any_number_of_spatial_dimensions_works(
    spec: Spec, params: dict[str, Any], mode: str, kind: str, shape: tuple[int, ...]
) -> None:
    if spec.family == "distance" and not shape:
        pytest.skip("no distances without a grid")
    images = 2 if shape else 12
    logits, target = example(
        mode, kind, seed=seed_of("dims", spec.name, mode, kind), images=images, shape=shape
    )
    value, grad = gradient(spec.build(mode, **params), logits, target)
    assert grad.shape == logits.shape
    if spec.family != "distance":
        flat_z = logits.reshape(*logits.shape[:2], -1)
        flat_t = target.reshape(*target.shape[: 2 if target.ndim == logits.ndim else 1], -1)
        close(value, spec.build(mode, **params)(flat_z, flat_t))
    expected = spec.expect(logits, target, mode, **params)
    assert value.item() == pytest.approx(expected, rel=spec.tolerance, abs=1e-13)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("mode", ["multiclass", "binary", "multilabel"])
def test_every_integer_dtype_of_labels_gives_the_same(mode: str, dtype: torch.dtype) -> None:
    logits, target = example(mode, seed=6)
    for name in ("ce", "dice", "lovasz_softmax"):
        loss = losses.build(name, mode=mode)
        assert torch.equal(loss(logits, target), loss(logits, target.to(dtype)))


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_boolean_masks_are_labels(mode: str) -> None:
    logits, target = example(mode, seed=6)
    for name in ("ce", "dice", "lovasz_hinge"):
        loss = losses.build(name, mode=mode)
        assert torch.equal(loss(logits, target), loss(logits, target.bool()))


@pytest.mark.parametrize(
    "name", have("ce", "focal", "dice", "tversky", "lovasz_softmax", "lovasz_hinge")
)
def test_a_binary_target_may_carry_its_channel(name: str) -> None:
    logits, target = example("binary", seed=7, void=0.2)
    loss = losses.build(name, mode="binary", ignore_index=VOID)
    assert torch.equal(loss(logits, target), loss(logits, target.unsqueeze(1)))


@pytest.mark.parametrize("name", have("ce", "focal", "poly1"))
def test_two_classes_with_a_softmax_are_a_sigmoid_of_the_margin(name: str) -> None:
    logits, target = example("multiclass", seed=9, channels=2)
    margin = logits[:, 1:] - logits[:, :1]
    close(losses.build(name)(logits, target), losses.build(name, mode="binary")(margin, target))


@pytest.mark.parametrize("name", have("ce", "focal", "dice", "jaccard", "lovasz_softmax"))
def test_adding_a_constant_to_the_logits_changes_nothing_under_a_softmax(name: str) -> None:
    logits, target = example("multiclass", seed=10)
    loss = losses.build(name)
    close(loss(logits, target), loss(logits + 7.25, target), 1e-11)
    _, grad = gradient(loss, logits, target)
    close(grad.sum(1), torch.zeros_like(grad[:, 0]))
