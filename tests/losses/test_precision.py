"""float16, bfloat16 and float32, also under autocast, against float64 on the same numbers.

The stated tolerances, per loss family: relative error of the value, and error of the gradient in the
l1 norm, relative to the exact gradient's. Half-precision logits are computed in float32, so the value
is limited by float32 sums and the gradient by its own rounding to the logits' dtype: 2^-8 for
bfloat16, and for float16 2^-11 plus what lies below its smallest subnormal, 6e-8 (hence the loss
scaling of SCALE, as in mixed-precision training).
"""

from __future__ import annotations

import pytest
import torch
from cases import (
    PRIMITIVES,
    SPECS,
    VOID,
    Spec,
    assert_equal,
    each,
    example,
    gradient,
    named,
    scenes,
)

from lossatlas import losses

#: By family, where it is not 2e-6.
VALUE = {"sort": 5e-6, "compound": 5e-6}
GRADIENT = {torch.float16: 1e-3, torch.bfloat16: 4e-3, torch.float32: 2e-5}
SCALE = 2.0**16
# The sum of p^2 is a float32 dot product, whose rounding does not average out over a chunk.
SQUARES = 5e-6


def street(
    mode: str, shape: tuple[int, ...], classes: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits rounded to ``dtype`` of a half-trained net, rare classes, 5 % void."""
    g = torch.Generator().manual_seed(7)
    n, *space = shape
    odds = 0.7 ** torch.arange(classes, dtype=torch.float)
    truth = torch.multinomial(odds, n * space[0] * space[1], True, generator=g).reshape(n, *space)
    void = torch.rand(n, *space, generator=g) < 0.05
    if mode == "multiclass":
        logits = 2 * torch.randn(n, classes, *space, generator=g)
        logits.scatter_add_(1, truth[:, None], torch.full((n, 1, *space), 2.0))
        return logits.to(dtype), truth.masked_fill(void, VOID)
    channels = 1 if mode == "binary" else classes
    mask = torch.stack([truth == c + 1 for c in range(channels)], 1)
    logits = 2 * torch.randn(n, channels, *space, generator=g) + 3 * mask - 1.5
    target = mask.long().masked_fill(void[:, None], VOID)
    return logits.to(dtype), target


def scaled_gradient(
    loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    z = logits.detach().clone().requires_grad_()
    value = loss(z, target)
    (value * SCALE).backward()
    return value.detach(), z.grad


def tolerance(spec: Spec) -> float:
    """The stated relative error of the value."""
    return SQUARES if spec.name == "dice_squared" else VALUE.get(spec.family, 2e-6)


def check(spec: Spec, loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor) -> None:
    """Value and gradient against those of float64, to the stated tolerances."""
    value, grad = scaled_gradient(loss, logits, target)
    exact, exact_grad = scaled_gradient(loss.double(), logits.double(), target)
    assert grad.dtype == logits.dtype
    assert value.dtype == (torch.float32 if logits.dtype != torch.float64 else torch.float64)
    assert value.item() == pytest.approx(exact.item(), rel=tolerance(spec), abs=1e-9)
    error = (grad.double() - exact_grad).abs().sum() / exact_grad.abs().sum()
    assert error.item() < GRADIENT[logits.dtype]


@each(*PRIMITIVES)
def test_low_precision_agrees_with_float64_to_the_stated_tolerance(spec: Spec) -> None:
    # Spatial sums beyond float16's 65504 and its 11 bits of integers.
    side = 24 if spec.family == "distance" else 96
    for scene in scenes(spec, kinds=("hard",)):
        for dtype in GRADIENT:
            logits, target = street(scene.mode, (4, side, side), 4, dtype)
            with named(scene, dtype):
                check(spec, scene.build(ignore_index=VOID), logits, target)


@each("ce", "focal", "dice", "generalized_dice", "lovasz_softmax", "ohem_ce")
def test_low_precision_agrees_with_float64_at_2_19_128_128(spec: Spec) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        logits, target = street("multiclass", (2, 128, 128), 19, dtype)
        with named(dtype):
            check(spec, spec.build("multiclass", ignore_index=VOID), logits, target)


@pytest.mark.slow
def test_low_precision_agrees_with_float64_at_8_19_512_512() -> None:
    logits, target = street("multiclass", (8, 512, 512), 19, torch.float16)
    check(SPECS["dice_ce"], losses.build("dice_ce", ignore_index=VOID), logits, target)


@each(*PRIMITIVES)
def test_autocast_changes_nothing_that_the_logits_dtype_did_not(spec: Spec) -> None:
    for scene in scenes(spec, kinds=("hard",)):
        for dtype in (torch.bfloat16, torch.float16):
            for logits_dtype in (dtype, torch.float32):
                logits, target = street(scene.mode, (2, 16, 16), 4, logits_dtype)
                loss = scene.build(ignore_index=VOID)
                value, grad = scaled_gradient(loss, logits, target)
                with named(scene, f"{logits_dtype} under autocast to {dtype}"):
                    with torch.autocast("cpu", dtype=dtype):
                        other, other_grad = scaled_gradient(loss, logits, target)
                    assert other.dtype == torch.float32
                    torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-7)
                    torch.testing.assert_close(other_grad, grad, rtol=1e-3, atol=1e-7 * SCALE)


@each("ce", "dice", "jaccard", "focal_tversky", "lovasz_softmax")
def test_half_precision_sums_do_not_overflow_where_peers_become_nan(spec: Spec) -> None:
    """2 x 3 x 512^2: a class has 170 000 pixels, more than float16 can count."""
    logits, target = street("multiclass", (2, 512, 512), 3, torch.float16)
    value, grad = scaled_gradient(spec.build("multiclass"), logits, target.clamp_max(2))
    assert value.isfinite() and grad.isfinite().all()
    assert (grad != 0).double().mean() > 0.9


@pytest.mark.parametrize("classes", [3, 12])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_region_sums_are_exact_whatever_the_precision_of_matrix_products(classes, spread):
    """A user lowers that for the network's speed; equal logits are what a network begins with."""
    g = torch.Generator().manual_seed(3)
    logits = spread * torch.randn(1, classes, 384, 384, generator=g)
    target = torch.randint(0, classes, (1, 384, 384), generator=g)
    loss = losses.build("dice")
    exact, exact_grad = gradient(loss, logits.double(), target)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        value, grad = gradient(loss, logits, target)
    finally:
        torch.set_float32_matmul_precision(before)
    assert value.item() == pytest.approx(exact.item(), rel=1e-6)
    assert (grad.double() - exact_grad).abs().sum() / exact_grad.abs().sum() < 2e-6


def test_numbers_in_a_list_are_rounded_to_the_logits_dtype_and_no_sooner() -> None:
    numbers = {"multiclass": [0.1, 0.9, 0.3, 0.7], "binary": [0.1, 0.9]}
    for name in ("ce", "dice", "lovasz_softmax", "unified_focal", "logit_adjusted_ce", "focal"):
        key = {"logit_adjusted_ce": "prior", "focal": "alpha"}.get(name, "weight")
        for mode, listed in numbers.items():
            for dtype in (torch.float64, torch.float32):
                logits, target = example(mode, dtype=dtype)
                tensor = torch.tensor(listed, dtype=dtype)
                got, expected = (
                    gradient(losses.build(name, mode=mode, **{key: value}), logits, target)
                    for value in (listed, tensor)
                )
                with named(name, mode, dtype):
                    if key == "prior" and dtype == torch.float32:
                        torch.testing.assert_close(got, expected)
                    else:
                        assert_equal(got, expected)


def test_a_loss_moves_to_a_device_that_has_no_float64() -> None:
    def to_device(x: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")  # as torch says it
        return x.clone()

    logits, target = example("multiclass", dtype=torch.float32)
    loss = losses.build("dice_ce", weight=[0.1, 0.9, 0.3, 0.7])
    expected = loss(logits, target)
    holder = torch.nn.Sequential(loss)._apply(to_device)
    assert all(b.dtype == torch.float32 for b in holder.buffers())
    assert torch.equal(loss(logits, target), expected)
