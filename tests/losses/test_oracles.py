"""Every loss equals its slow NumPy oracle, in value and in gradient, over modes, targets and options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import CLASSES, SPECS, VOID, WEIGHT, Spec, combinations, example, gradient, label, seed_of

from lossatlas import losses

def options_of(spec: Spec, mode: str) -> list[dict[str, Any]]:
    """Combinations of the common keywords worth a test."""
    options: list[dict[str, Any]] = [{"ignore_index": VOID}, {"reduction": "sum", "ignore_index": VOID},
                                     {"reduction": "none", "ignore_index": VOID}]
    if mode != "binary" or spec.family == "pixel":
        options.append({"weight": WEIGHT[mode], "ignore_index": VOID})
    if mode == "binary" and spec.family == "pixel":
        options.append({"weight": torch.tensor([0.5, 2.0], dtype=torch.float64)})
    if spec.is_region:
        options += [
            {"per_image": True},
            {"per_image": True, "reduction": "none", "ignore_index": VOID},
            {"per_image": True, "reduction": "sum"},
        ]
        if mode != "binary":
            options += [
                {"classes": "all"},
                {"classes": [1, 3], "ignore_index": VOID},
                {"classes": "all", "per_image": True, "weight": WEIGHT[mode]},
                {"per_image": True, "weight": WEIGHT[mode], "ignore_index": VOID, "reduction": "sum"},
            ]
    return options


def text(options: dict[str, Any]) -> str:
    return ",".join(f"{k}={'w' + str(len(v)) if isinstance(v, torch.Tensor) else v}" for k, v in options.items())


CASES = [pytest.param(*c, id=label(*c)) for c in combinations(SPECS)]


def assert_same(got: torch.Tensor, expected: Any, about: str = "") -> None:
    np.testing.assert_allclose(got.detach().numpy(), np.asarray(expected), rtol=1e-10, atol=1e-13, err_msg=about)
    assert tuple(got.shape) == np.shape(expected), about


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), CASES)
def test_the_default_call_equals_the_oracle(spec: Spec, params: dict[str, Any], mode: str, kind: str) -> None:
    logits, target = example(mode, kind, seed=seed_of(spec.name, mode, kind))
    assert_same(spec.build(mode, **params)(logits, target), spec.expect(logits, target, mode, **params))


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), CASES)
def test_every_option_equals_the_oracle(spec: Spec, params: dict[str, Any], mode: str, kind: str) -> None:
    for options in options_of(spec, mode):
        both = {**params, **options}
        void = 0.25 if "ignore_index" in both else 0.0
        logits, target = example(mode, kind, seed=seed_of(spec.name, mode, kind, text(both)), void=void)
        got, expected = spec.build(mode, **both)(logits, target), spec.expect(logits, target, mode, **both)
        assert_same(got, expected, text(both))


@pytest.mark.parametrize(("spec", "params", "mode", "kind"), CASES)
def test_the_gradient_equals_central_differences_of_the_oracle(
    spec: Spec, params: dict[str, Any], mode: str, kind: str
) -> None:
    logits, target = example(mode, kind, seed=seed_of("gradient", spec.name, mode, kind), shape=(4,), void=0.2)
    common = {**params, "ignore_index": VOID}
    _, got = gradient(spec.build(mode, **common), logits, target)
    expected = np.zeros(logits.shape)
    step = 1e-5
    for k in np.ndindex(*logits.shape):
        moved = []
        for sign in (1, -1):
            z = logits.clone()
            z[k] += sign * step
            moved.append(spec.expect(z, target, mode, **common))
        expected[k] = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(got.numpy(), expected, rtol=2e-6, atol=2e-9)


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
