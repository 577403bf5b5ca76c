"""Random shapes, dtypes, magnitudes and label patterns: a finite value and gradient, or a clear error. Never less."""

from __future__ import annotations

from typing import Any

import torch
from cases import VOID, Spec, each, gradient, named
from hypothesis import given, settings
from hypothesis import strategies as st

from lossatlas import losses

QUICK = settings(max_examples=12, deadline=None, derandomize=True, database=None)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, torch.Tensor, torch.Tensor, dict[str, Any]]:
    """(mode, logits, target, keywords) that every loss must take."""
    mode = draw(st.sampled_from(["multiclass", "binary", "multilabel"]))
    images = draw(st.integers(0, 3))
    channels = 1 if mode == "binary" else draw(st.integers(2 if mode == "multiclass" else 1, 5))
    space = tuple(draw(st.lists(st.integers(0, 4), min_size=0, max_size=3)))
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    magnitude = draw(st.sampled_from([0.0, 1e-6, 1.0, 30.0, 1e4]))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    normal = torch.randn(images, channels, *space, generator=g, dtype=torch.float64)
    logits = normal.clamp(-3, 3) * (magnitude / 3)
    pattern = draw(st.sampled_from(["random", "constant", "one void", "all void", "soft"]))
    shape = (images, *space) if mode != "multilabel" else (images, channels, *space)
    top = channels if mode == "multiclass" else 2
    target = torch.randint(0, top, shape, generator=g)
    if pattern == "constant":
        target = torch.full(shape, top - 1)
    elif pattern == "one void" and target.numel():
        target.view(-1)[0] = VOID
    elif pattern == "all void":
        target = torch.full(shape, VOID)
    elif pattern == "soft":
        full = torch.rand(images, channels, *space, generator=g).to(dtype)
        target = full.softmax(1) if mode == "multiclass" else full
    keywords: dict[str, Any] = {"ignore_index": VOID}
    if draw(st.booleans()):
        keywords["weight"] = torch.rand(channels, generator=g) + draw(st.sampled_from([0.0, 0.1]))
    return mode, logits.to(dtype), target, keywords


@each()
@QUICK
@given(case=calls(), per_image=st.booleans(), reduction=st.sampled_from(["mean", "sum", "none"]))
def test_every_call_gives_a_finite_value_and_gradient(
    spec: Spec, case: tuple, per_image: bool, reduction: str
) -> None:
    mode, logits, target, keywords = case
    if spec.is_region:
        keywords["per_image"] = per_image
    if reduction in spec.reductions:
        keywords["reduction"] = reduction
    if spec.weighted:
        keywords.setdefault("weight", torch.ones(logits.shape[1]))
    value, grad = gradient(losses.build(spec.name, mode=mode, **keywords), logits, target)
    assert value.isfinite().all()
    assert grad.isfinite().all()
    assert grad.shape == logits.shape and grad.dtype == logits.dtype
    if spec.name not in ("boundary", "poly1"):  # boundary is signed; poly1 could be
        assert (value >= -1e-6).all()


@QUICK
@given(case=calls())
def test_overlap_losses_stay_between_0_and_1(case: tuple) -> None:
    mode, logits, target, keywords = case
    between = "dice", "jaccard", "tversky", "generalized_dice", "lovasz_softmax", "dice_semimetric"
    for name in between:
        value = losses.build(name, mode=mode, **keywords)(logits, target)
        with named(name):
            assert -1e-6 <= value.item() <= 1 + 1e-6


@QUICK
@given(case=calls(), scale=st.floats(0.01, 100))
def test_scaling_all_weights_changes_no_mean(case: tuple, scale: float) -> None:
    mode, logits, target, keywords = case
    weight = torch.rand(logits.shape[1], generator=torch.Generator().manual_seed(1)) + 0.1
    if mode == "binary":  # where one weight is relative to the background's 1: give both
        weight = torch.tensor([0.3, 1.7])
    logits = logits.double().clamp(-50, 50)
    for name in ("ce", "focal", "dice", "lovasz_softmax"):
        a, b = (
            losses.build(name, mode=mode, **{**keywords, "weight": w})(logits, target)
            for w in (weight, weight * scale)
        )
        with named(name):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


@QUICK
@given(
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=5),
    other=st.lists(st.integers(0, 4), min_size=0, max_size=5),
    mode=st.sampled_from(["multiclass", "binary", "multilabel"]),
    floating=st.booleans(),
    high=st.integers(0, 400),
)
def test_a_call_that_does_not_fit_raises_a_clear_error(
    shape: list[int], other: list[int], mode: str, floating: bool, high: int
) -> None:
    logits = torch.zeros(shape)
    target = torch.full(other, float(high) if floating else high)
    for name in ("ce", "dice", "lovasz_softmax", "ohem_ce"):
        try:
            value = losses.build(name, mode=mode)(logits, target)
        except (ValueError, TypeError) as error:
            assert len(str(error)) > 20
        else:
            assert value.isfinite()
