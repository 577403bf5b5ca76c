"""Every loss equals its slow NumPy oracle, in value and in gradient, over modes, targets and options."""

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
    Spec,
    combinations,
    example,
    gradient,
    label,
    seed_of,
)

from lossatlas import losses


def options_of(spec: Spec, mode: str, kind: str) -> list[dict[str, Any]]:
    """Combinations of the common keywords worth a test."""
    void = {"ignore_index": VOID}
    options: list[dict[str, Any]] = [{**void, "reduction": r} for r in spec.reductions]
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


def text(options: dict[str, Any]) -> str:
    return ",".join(
        f"{k}={'w' + str(len(v)) if isinstance(v, torch.Tensor) else v}" for k, v in options.items()
    )


CASES = [pytest.param(*c, id=label(*c)) for c in combinations(SPECS)]


def assert_same(spec: Spec, got: torch.Tensor, expected: Any, about: str = "") -> None:
    np.testing.assert_allclose(
        got.detach().numpy(),
        np.asarray(expected),
        rtol=spec.tolerance,
        atol=spec.tolerance / 100,
        err_msg=about,
    )
    assert tuple(got.shape) == np.shape(expected), about


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), CASES)
def test_the_default_call_equals_the_oracle(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, seed=seed_of(spec.name, mode, kind))
    assert_same(
        spec,
        spec.build(mode, **params)(logits, target),
        spec.expect(logits, target, mode, **params),
    )


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), CASES)
def test_every_option_equals_the_oracle(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    for options in options_of(spec, mode, kind):
        both = {**params, **options}
        void = 0.25 if "ignore_index" in both else 0.0
        logits, target = example(
            mode, kind, seed=seed_of(spec.name, mode, kind, text(both)), void=void
        )
        got, expected = (
            spec.build(mode, **both)(logits, target),
            spec.expect(logits, target, mode, **both),
        )
        assert_same(spec, got, expected, text(both))


DEFAULTS = [pytest.param(*c, id=label(*c)) for c in combinations(SPECS, variants=False)]


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), DEFAULTS)
def test_float32_gives_the_values_and_gradients_of_float64_under_every_option(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    """float32 has code of its own (chunks, radix sorts): every option again, on a size with odd ends."""
    extra: list[dict[str, Any]] = [{}]
    if "bins" in losses.parameters(spec.name):
        extra += [{"bins": 64, "ignore_index": VOID}, {"bins": 64, "per_image": True}]
    for options in options_of(spec, mode, kind) + extra:
        void = 0.2 if "ignore_index" in options else 0.0
        seed = seed_of("float32", spec.name, mode, kind, text(options))
        logits, target = example(mode, kind, seed=seed, void=void, images=3, shape=(7, 5))
        logits = logits.float().double()  # the same numbers in both precisions
        soft = target.is_floating_point()
        loss = spec.build(mode, **options)
        value, grad = gradient(loss, logits, target.float().double() if soft else target)
        single, single_grad = gradient(loss, logits.float(), target.float() if soft else target)
        about = text(options)
        np.testing.assert_allclose(
            single.numpy(), value.numpy(), rtol=2e-5, atol=2e-6, err_msg=about
        )
        error = (single_grad.double() - grad).abs()
        # Two errors one unit in the last place apart may change places, or the bin of a histogram.
        limit = 5e-2 if spec.family == "sort" or spec.name == "ce_lovasz" else 1e-4
        assert error.max() <= limit * grad.abs().max() + 1e-9, about
        assert error.sum() <= limit / 10 * grad.abs().sum() + 1e-9, about


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), CASES)
def test_the_gradient_equals_central_differences_of_the_oracle(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(
        mode, kind, seed=seed_of("gradient", spec.name, mode, kind), shape=(4,), void=0.2
    )
    common = {**params, "ignore_index": VOID}
    _, got = gradient(spec.build(mode, **common), logits, target)
    places = np.random.default_rng(0).permutation(list(np.ndindex(*logits.shape)))[:6]
    step = 1e-5
    for k in map(tuple, places):
        moved = []
        for sign in (1, -1):
            z = logits.clone()
            z[k] += sign * step
            moved.append(spec.expect(z, target, mode, **common))
        expected = (moved[0] - moved[1]) / (2 * step)
        assert got[k].item() == pytest.approx(expected, rel=2e-6, abs=2e-9), k


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
