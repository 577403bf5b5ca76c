"""The Lovasz losses at the size of real batches, under ties, and with a histogram instead of a sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import VOID, example, gradient, named

from lossatlas import losses


def reference_gradient(errors: np.ndarray, t: np.ndarray) -> np.ndarray:
    """dL/d(error) in float64 by the closed form, vectorised: foreground 1/U, background I/(U (U - 1))."""
    order = np.argsort(-errors, kind="stable")
    truth = t[order].astype(np.float64)
    total = truth.sum()
    foreground_ahead = np.cumsum(truth) - truth
    background_ahead = np.arange(truth.size) - foreground_ahead
    union = total + background_ahead
    inter = total - foreground_ahead
    out = np.empty_like(truth)
    out[order] = np.where(truth == 1, 1 / union, inter / (union * (union + 1)))
    return out


def batch(images: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    target = (torch.rand(images, side, side, generator=g) < 0.2).long()
    logits = torch.randn(images, 1, side, side, generator=g) + 2 * target[:, None] - 1
    return logits, target


def test_the_float32_gradient_is_exact_at_one_megapixel() -> None:
    """Differencing the Jaccard curve in float32, as peers do, loses this: see the conformance page."""
    logits, target = batch(1, 1024)
    _, got = gradient(losses.build("lovasz_hinge", mode="binary", per_image=False), logits, target)
    t = target.numpy().ravel()
    # In float32 as the loss computes them: ties and order are then the same, and the increments alone are tested.
    errors = (1 - logits * (2 * target[:, None] - 1)).numpy().ravel().astype(np.float64)
    # Ties: foreground first, as documented.
    order = np.lexsort((-t, -errors))
    ranked = np.empty_like(errors)
    ranked[order] = -np.arange(errors.size)
    expected = -(2 * t - 1) * reference_gradient(ranked, t) * (errors > 0)
    got = got.double().numpy().ravel()
    used = expected != 0
    relative = np.abs(got - expected)[used] / np.abs(expected[used])
    # The sort key gives its last bit to the tie rule, so that errors one unit in the last place apart may change
    # places: a few ranks, which a pixel near the end of the curve (I small) feels most.
    assert np.median(relative) < 1e-6
    assert np.abs(got - expected).sum() / np.abs(expected).sum() < 1e-6
    assert np.quantile(relative, 0.9999) < 1e-5
    assert relative.max() < 1e-3
    assert ((got == 0) == (expected == 0)).mean() > 1 - 1e-4


@pytest.mark.parametrize("name", ["lovasz_softmax", "lovasz_hinge"])
def test_tied_errors_get_a_subgradient_and_the_value_does_not_depend_on_the_order(
    name: str,
) -> None:
    """Logits on a grid of four values: most errors are tied."""
    for mode in ("multiclass", "binary"):
        _, target = example(mode, seed=5, shape=(6, 6))
        g = torch.Generator().manual_seed(2)
        shape = (2, 4 if mode == "multiclass" else 1, 6, 6)
        logits = torch.randint(-1, 3, shape, generator=g).double()
        loss = losses.build(name, mode=mode, per_image=False)
        value, grad = gradient(loss, logits, target)
        again = torch.arange(36).flip(0)
        z, t = logits.flatten(2)[..., again], target.flatten(1)[..., again]
        other, other_grad = gradient(loss, z, t)
        torch.testing.assert_close(other, value, rtol=1e-12, atol=1e-14)
        # A rule for ties (foreground first) makes the sum over equal pixels the same whatever their order.
        torch.testing.assert_close(other_grad.sum(), grad.sum(), rtol=1e-9, atol=1e-12)
        # A subgradient of a function convex in the errors. The hinge is convex in the logits as well:
        if name == "lovasz_hinge" and mode == "binary":
            for _ in range(20):
                moved = logits + 0.3 * torch.randn(shape, generator=g, dtype=torch.float64)
                assert loss(moved, target) >= value + ((moved - logits) * grad).sum() - 1e-10


def test_the_hinge_is_at_least_the_jaccard_loss_of_the_prediction() -> None:
    for seed in range(20):
        logits, target = example("binary", seed=seed, images=1, shape=(20,))
        predicted = logits[:, 0] > 0
        union = (predicted | target.bool()).sum().item()
        jaccard = 1 - (predicted & target.bool()).sum().item() / union if union else 0.0
        assert losses.build("lovasz_hinge")(logits, target).item() >= jaccard - 1e-12


@pytest.mark.parametrize("name", ["lovasz_softmax", "lovasz_hinge"])
def test_the_histogram_stays_within_its_stated_bound(name: str) -> None:
    """The bound of the docstring: errors are moved by at most half a bin, and the increments sum to at most 1."""
    for seed in range(12):
        for mode in ("multiclass", "binary", "multilabel"):
            logits, target = example(mode, seed=seed, shape=(13, 11), void=0.1)
            options = {"mode": mode, "ignore_index": VOID, "per_image": bool(seed % 2)}
            exact, exact_grad = gradient(losses.build(name, **options), logits, target)
            # softmax errors lie in [0, 1]; hinge errors reach up to the largest margin
            width = 1.0 if name == "lovasz_softmax" else (1 + logits.abs().max()).item()
            for bins in (16, 256, 4096):
                value, grad = gradient(losses.build(name, bins=bins, **options), logits, target)
                with named(mode, f"seed {seed}", f"{bins} bins"):
                    # From below, as derived; rounding apart.
                    assert -1e-12 <= (exact - value).item() <= width / bins
                    assert grad.isfinite().all()
                    if bins == 4096:
                        assert (grad - exact_grad).abs().sum() <= 0.05 * exact_grad.abs().sum()


def test_the_histogram_is_exact_where_every_error_has_a_bin_of_its_own_or_a_corner() -> None:
    """Errors 0 and 1 alone: every bin but the first and the last is empty."""
    g = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 8, 8), generator=g)
    guess = torch.where(
        torch.rand(2, 8, 8, generator=g) < 0.3, torch.randint(0, 3, (2, 8, 8), generator=g), target
    )
    logits = 200.0 * torch.nn.functional.one_hot(guess, 3).movedim(-1, 1).double()
    exact = losses.build("lovasz_softmax")(logits, target)
    for bins in (64, 1024):
        got = losses.build("lovasz_softmax", bins=bins)(logits, target)
        assert abs(got - exact).item() <= 1 / bins


def test_the_lovasz_weights_sum_to_one() -> None:
    """With every pixel wrong by the same amount, the weights g_rank of the errors telescope to 1."""
    logits, target = example("binary", seed=8, shape=(5, 5))
    _, got = gradient(losses.build("lovasz_hinge", mode="binary"), 0 * logits, target)
    assert got.abs().sum().item() == pytest.approx(1.0, rel=1e-12)
