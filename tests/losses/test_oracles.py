"""Every loss equals its plain NumPy oracle, in value and in gradient, over modes, targets and options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import (
    CLASSES,
    SPECS,
    VOID,
    WEIGHT,
    Scene,
    Spec,
    each,
    example,
    gradient,
    named,
    scenes,
    seed_of,
    text,
)

from lossatlas import losses


def options_of(spec: Spec, mode: str, kind: str) -> list[dict[str, Any]]:
    """Combinations of the common keywords worth a test, first none."""
    void = {"ignore_index": VOID}
    options: list[dict[str, Any]] = [{}]
    options += [{**void, "reduction": r} for r in spec.reductions]
    options.append({**void, "weight": WEIGHT[mode]})
    if mode == "binary":
        options += [{"weight": torch.tensor([0.5, 2.0], dtype=torch.float64)}]
    if spec.is_region:
        options += [{"per_image": True, "reduction": r} for r in spec.reductions]
        options += [
            {**void, "per_image": True, "weight": WEIGHT[mode], "reduction": spec.reductions[-1]},
            {"classes": "all", "per_image": True, "weight": WEIGHT[mode]},
            {"classes": "present", "per_image": True},
        ]
        if mode != "binary":
            options += [{"classes": "all"}, {**void, "classes": [1, 3]}]
    if spec.name == "lovasz_hinge":
        options.append({**void, "per_image": False})
    return options


def assert_same(spec: Spec, got: torch.Tensor, expected: Any) -> None:
    np.testing.assert_allclose(
        got.detach().numpy(),
        np.asarray(expected),
        rtol=spec.tolerance,
        atol=spec.tolerance / 100,
    )
    assert tuple(got.shape) == np.shape(expected)


@each()
def test_the_value_equals_the_oracle_under_every_option(spec: Spec) -> None:
    for scene in scenes(spec, variants=True):
        for options in options_of(spec, scene.mode, scene.kind):
            with named(scene, text(options)):
                void = 0.25 if "ignore_index" in options else 0.0
                salt = text({**scene.params, **options}) if options else ""
                logits, target = scene.example(salt, void=void)
                got = scene.build(**options)(logits, target)
                assert_same(spec, got, scene.expect(logits, target, **options))


@each()
def test_float32_gives_the_values_and_gradients_of_float64_under_every_option(spec: Spec) -> None:
    """float32 has code of its own (chunks, radix sorts): every option again, on a size with odd ends."""
    binned: list[dict[str, Any]] = []
    if "bins" in losses.parameters(spec.name):
        binned = [{"bins": 64, "ignore_index": VOID}, {"bins": 64, "per_image": True}]
    for scene in scenes(spec):
        for options in options_of(spec, scene.mode, scene.kind) + binned:
            with named(scene, text(options)):
                assert_float32_is_float64(scene, options)


def assert_float32_is_float64(scene: Scene, options: dict[str, Any]) -> None:
    """Value and gradient of the same numbers in both precisions."""
    void = 0.2 if "ignore_index" in options else 0.0
    logits, target = scene.example("float32" + text(options), void=void, images=3, shape=(7, 5))
    logits = logits.float().double()
    soft = target.is_floating_point()
    loss = scene.build(**options)
    value, grad = gradient(loss, logits, target.float().double() if soft else target)
    single, single_grad = gradient(loss, logits.float(), target.float() if soft else target)
    np.testing.assert_allclose(single.numpy(), value.numpy(), rtol=2e-5, atol=2e-6)
    error = (single_grad.double() - grad).abs()
    # Two errors one unit in the last place apart may change places, or the bin of a histogram.
    limit = 5e-2 if scene.spec.family == "sort" or scene.spec.name == "ce_lovasz" else 1e-4
    assert error.max() <= limit * grad.abs().max() + 1e-9
    assert error.sum() <= limit / 10 * grad.abs().sum() + 1e-9


@each()
def test_the_gradient_equals_central_differences_of_the_oracle(spec: Spec) -> None:
    step = 1e-5
    for scene in scenes(spec, variants=True):
        logits, target = scene.example("gradient", shape=(4,), void=0.2)
        _, got = gradient(scene.build(ignore_index=VOID), logits, target)
        places = np.random.default_rng(0).permutation(list(np.ndindex(*logits.shape)))[:6]
        for k in map(tuple, places):
            moved = []
            for sign in (1, -1):
                z = logits.clone()
                z[k] += sign * step
                moved.append(scene.expect(z, target, ignore_index=VOID))
            expected = (moved[0] - moved[1]) / (2 * step)
            with named(scene, f"logit {k}"):
                assert got[k].item() == pytest.approx(expected, rel=2e-6, abs=2e-9)


def test_every_registered_name_has_an_oracle() -> None:
    assert set(losses.names()) == set(SPECS)


def test_the_examples_contain_an_absent_class_and_unequal_counts() -> None:
    """Otherwise the oracle tests could not tell the conventions apart."""
    counts = []
    for spec in SPECS.values():
        _, target = example("multiclass", "hard", seed=seed_of(spec.name, "multiclass", "hard"))
        counts.append([int((target == c).sum()) for c in range(CLASSES)])
    assert any(0 in row for row in counts)
    assert all(len(set(row)) > 1 for row in counts)
