"""The gradients that the literature states in closed form, against what autograd returns."""

from __future__ import annotations

import closed_form as cf
import numpy as np
import pytest
import torch
from cases import CLASSES, example, gradient, named

from lossatlas import losses

BINARY = {
    "ce": lambda p, t, z: cf.ce(p, t),
    "focal": lambda p, t, z: cf.focal(p, t, 2.0),
    "poly1": lambda p, t, z: cf.poly1(p, t, 1.0),
    "asymmetric": lambda p, t, z: cf.asymmetric(p, t, 0.0, 4.0, 0.05),
    "dice": lambda p, t, z: cf.dice(p, t),
    "dice_squared": lambda p, t, z: cf.dice_squared(p, t),
    "jaccard": lambda p, t, z: cf.jaccard(p, t),
    "tversky": lambda p, t, z: cf.tversky(p, t, 0.3, 0.7),
    "focal_tversky": lambda p, t, z: cf.focal_tversky(p, t, 0.3, 0.7, 4 / 3),
    "log_cosh_dice": lambda p, t, z: cf.log_cosh_dice(p, t),
    "inverse_dice": lambda p, t, z: cf.inverse_dice(p, t),
    "dice_semimetric": lambda p, t, z: cf.dice(p, t),  # the same function on hard labels
    "lovasz_softmax": lambda p, t, z: cf.lovasz_sigmoid(p, t),
    "lovasz_hinge": lambda p, t, z: cf.lovasz_hinge(z, t),
}
SMOOTH = {
    "dice": lambda p, t: cf.dice(p, t, 1.0),
    "dice_squared": lambda p, t: cf.dice_squared(p, t, 1.0),
    "jaccard": lambda p, t: cf.jaccard(p, t, 1.0),
    "tversky": lambda p, t: cf.tversky(p, t, 0.3, 0.7, 1.0),
    "focal_tversky": lambda p, t: cf.focal_tversky(p, t, 0.3, 0.7, 4 / 3, 1.0),
    "log_cosh_dice": lambda p, t: cf.log_cosh_dice(p, t, 1.0),
}


@pytest.fixture(scope="module")
def binary() -> tuple[torch.Tensor, torch.Tensor]:
    return example("binary", seed=11, images=3, shape=(5, 4))


@pytest.mark.parametrize("name", BINARY)
def test_the_binary_gradient_is_the_published_formula(name: str, binary: tuple) -> None:
    logits, target = binary
    whole = {"per_image": False} if name == "lovasz_hinge" else {}  # whose default is per image
    _, got = gradient(losses.build(name, mode="binary", **whole), logits, target)
    z, t = logits.numpy().ravel(), target.numpy().ravel().astype(float)
    expected = BINARY[name](cf.sigmoid(z), t, z)
    np.testing.assert_allclose(got.numpy().ravel(), expected, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("name", SMOOTH)
def test_smoothing_enters_the_binary_gradient_as_derived(name: str, binary: tuple) -> None:
    logits, target = binary
    _, got = gradient(losses.build(name, mode="binary", smooth=1.0), logits, target)
    p, t = cf.sigmoid(logits.numpy().ravel()), target.numpy().ravel().astype(float)
    np.testing.assert_allclose(got.numpy().ravel(), SMOOTH[name](p, t), rtol=1e-11, atol=1e-16)


def multiclass(absent: bool) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Logits, labels, softmax and one-hot as (N, C, P)."""
    logits, target = example("multiclass", seed=5, images=2, shape=(4, 4))
    if absent:
        target[target == 2] = 0
    z = logits.reshape(2, CLASSES, -1).numpy()
    e = np.exp(z - z.max(axis=1, keepdims=True))
    t = np.moveaxis(np.eye(CLASSES)[target.reshape(2, -1).numpy()], -1, 1)
    return logits, target, e / e.sum(axis=1, keepdims=True), t


@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky", "lovasz_softmax"])
def test_the_softmax_gradient_of_region_losses_is_the_published_formula(name: str) -> None:
    for absent in (False, True):
        logits, target, p, t = multiclass(absent)
        for weight in (np.ones(CLASSES), np.array([1.0, 2.0, 3.0, 0.5])):
            present = t.sum(axis=(0, 2)) > 0
            expected = cf.softmax_region(name, p, t, present, weight, alpha=0.3, beta=0.7)
            _, got = gradient(losses.build(name, weight=torch.tensor(weight)), logits, target)
            with named("one class absent" if absent else "all present", f"weight {weight}"):
                np.testing.assert_allclose(
                    got.numpy().reshape(p.shape), expected, rtol=1e-10, atol=1e-16
                )


def test_the_weighted_cross_entropy_gradient_is_w_times_p_minus_t() -> None:
    logits, target, p, t = multiclass(False)
    weight = np.array([1.0, 2.0, 3.0, 0.5])
    _, got = gradient(losses.build("ce", weight=torch.tensor(weight)), logits, target)
    np.testing.assert_allclose(
        got.numpy().reshape(p.shape), cf.softmax_ce(p, t, weight), rtol=1e-12, atol=1e-16
    )


def test_the_softmax_gradient_of_the_asymmetric_loss_is_its_slope_through_the_softmax() -> None:
    logits, target, p, t = multiclass(True)
    parameters = {"gamma_positive": 1.5, "gamma_negative": 2.5, "margin": 0.1}
    expected = cf.through_softmax(p, cf.asymmetric_slope(p, t, *parameters.values()))
    _, got = gradient(losses.build("asymmetric", **parameters), logits, target)
    np.testing.assert_allclose(
        got.numpy().reshape(p.shape), expected / target.numel(), rtol=1e-11, atol=1e-16
    )


def test_the_generalised_dice_gradient_of_two_classes_is_the_published_formula() -> None:
    logits, target = example("multiclass", seed=2, channels=2, shape=(4, 4))
    _, got = gradient(losses.build("generalized_dice"), logits, target)
    margin = (logits[:, 1] - logits[:, 0]).numpy().ravel()
    expected = cf.generalized_dice_two_classes(
        cf.sigmoid(margin), target.numpy().ravel().astype(float)
    )
    np.testing.assert_allclose(got[:, 1].numpy().ravel(), expected, rtol=1e-11, atol=1e-16)
    np.testing.assert_allclose(got[:, 0].numpy().ravel(), -expected, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("size", [1, 4, 40])
def test_a_dice_pixel_gradient_reaches_its_bound_and_no_more(size: int) -> None:
    """sup |dL/dz| = 1 / (2 (T + 1)): a foreground pixel at p = T / (2T + 1), everything else predicted background."""
    p = size / (2 * size + 1)
    logits = torch.full((1, 1, size), -60.0, dtype=torch.float64)
    logits[..., 0] = np.log(p / (1 - p))
    loss, target = losses.build("dice", mode="binary"), torch.ones(1, size, dtype=torch.long)
    _, got = gradient(loss, logits, target)
    assert got.abs().max().item() == pytest.approx(1 / (2 * (size + 1)), rel=1e-9)
    for nudge in (-0.1, 0.1):
        logits[..., 0] += nudge
        assert gradient(loss, logits, target)[1].abs().max().item() < 1 / (2 * (size + 1))
        logits[..., 0] -= nudge


def test_the_dice_and_jaccard_gradients_are_parallel() -> None:
    """grad D = 2 / (1 + J)^2 grad J."""
    logits, target = example("binary", seed=4, shape=(6, 6))
    _, dice = gradient(losses.build("dice", mode="binary"), logits, target)
    jaccard_loss, jaccard = gradient(losses.build("jaccard", mode="binary"), logits, target)
    j = 1 - jaccard_loss.item()
    np.testing.assert_allclose(dice.numpy(), 2 / (1 + j) ** 2 * jaccard.numpy(), rtol=1e-11)


def test_the_lovasz_weights_sum_to_one() -> None:
    """With every foreground pixel wrong by the same amount, the weights g_rank of the errors telescope to 1."""
    logits, target = example("binary", seed=8, shape=(5, 5))
    _, got = gradient(
        losses.build("lovasz_hinge", mode="binary"), logits - logits, target
    )  # all errors are 1
    assert got.abs().sum().item() == pytest.approx(1.0, rel=1e-12)
