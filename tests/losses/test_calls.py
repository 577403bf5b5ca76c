"""Calls that cannot be right: the error says what was expected, what came, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import SPECS, named

from lossatlas import losses

Z = torch.zeros(2, 4, 3, 3)
B = torch.zeros(2, 1, 3, 3)
Y = torch.zeros(2, 3, 3, dtype=torch.long)
EVERY = sorted(n for n, s in SPECS.items() if not s.weighted)

# (mode, logits, target, error, what the message names: what was expected, what came, the remedy)
# fmt: off
WRONG: dict[str, tuple[str, Any, Any, type[Exception], list[str]]] = {
    "one channel in multiclass": ("multiclass", B, Y, ValueError, ["2 channels", "C=1", 'mode="binary"']),
    "several channels in binary": ("binary", Z, Y, ValueError, ["1 channel", "C=4", "multiclass"]),
    "logits without channels": ("multiclass", Z[0, 0, 0], Y, ValueError, ["(N, C", "(3,)", "unsqueeze"]),
    "integer logits": ("multiclass", Z.long(), Y, TypeError, ["floating", "int64", "raw scores"]),
    "logits that are no tensor": ("multiclass", [[0.0, 1.0]], Y, TypeError, ["tensor", "list"]),
    "a target that is no tensor": ("multiclass", Z, [[0]], TypeError, ["tensor", "list"]),
    "a target of another size": ("multiclass", Z, Y[:, :2], ValueError, ["(2, 3, 3)", "(2, 2, 3)"]),
    "integer one-hot": ("multiclass", Z, Z.long(), ValueError, ["(2, 3, 3)", "(2, 4, 3, 3)", "floating"]),
    "float class indices": ("multiclass", Z, Y.float(), ValueError, ["probabilities", "(2, 3, 3)", "long()"]),
    "a boolean target in multiclass": ("multiclass", Z, Y.bool(), TypeError, ["integer", "bool", "long()"]),
    "labels in multilabel without channels": ("multilabel", Z, Y, ValueError, ["(2, 4, 3, 3)", "(2, 3, 3)"]),
    "a complex target": ("multiclass", Z, Z.to(torch.complex64), TypeError, ["complex64"]),
    "a label too large": ("multiclass", Z, Y + 300, ValueError, ["0 to 3", "300", "ignore_index"]),
    "a negative label": ("multiclass", Z, Y - 1, ValueError, ["0 to 3", "-1", "ignore_index"]),
    "a label 2 in binary": ("binary", B, Y + 2, ValueError, ["0 to 1", "2", "ignore_index"]),
    "a probability above 1": ("multiclass", Z, Z + 1.5, ValueError, ["[0, 1]", "1.5"]),
    "a NaN target": ("multilabel", Z, Z * torch.nan, ValueError, ["[0, 1]", "nan"]),
}
# fmt: on


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_every_loss_refuses_a_wrong_call_with_expected_got_and_remedy(wrong: str) -> None:
    mode, logits, target, kind, words = WRONG[wrong]
    for name in EVERY:
        with named(name):
            with pytest.raises(kind) as caught:
                losses.build(name, mode=mode)(logits, target)
            for word in words:
                assert word in str(caught.value)


def test_a_wrong_length_of_weight_is_refused() -> None:
    for name in EVERY:
        with named(name), pytest.raises(ValueError, match=r"weight must have 4 entries.*got 3"):
            losses.build(name, mode="multiclass", weight=[1.0, 2.0, 3.0])(Z, Y)


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"mode": "mutliclass"}, ValueError, ["multiclass", "mutliclass"]),
        ({"mode": 3}, TypeError, ["multiclass", "3"]),
        ({"reduction": "avg"}, ValueError, ["mean", "avg"]),
        ({"ignore_index": 2.5}, TypeError, ["integer", "2.5"]),
        ({"ignore_index": True}, TypeError, ["integer", "True"]),
        ({"weight": [1.0, -1.0]}, ValueError, ["-1"]),
        ({"weight": [1.0, float("inf")]}, ValueError, ["finite", "inf"]),
        ({"weight": [[1.0, 2.0]]}, (ValueError, TypeError), ["weight"]),
        ({"weight": torch.ones(2, 2)}, ValueError, ["(C,)", "(2, 2)"]),
        ({"weight": "balanced"}, TypeError, ["weight", "balanced"]),
    ],
    ids=str,
)
def test_wrong_common_parameters_are_refused_when_the_loss_is_built(
    params: dict, kind: Any, words: list[str]
) -> None:
    for name in EVERY:
        with named(name):
            with pytest.raises(kind) as caught:
                losses.build(name, **params)
            for word in words:
                assert word in str(caught.value)


# (loss, its parameter, values that it cannot have)
OUT_OF_RANGE: list[tuple[str, str, list]] = [
    ("ce", "label_smoothing", [-0.1, 1.1]),
    ("focal", "gamma", [-1.0, float("nan")]),
    ("focal", "alpha", [1.5]),
    ("focal", "normalizer", ["pixel"]),
    ("one_vs_all_ce", "negative_weight", [-1]),
    ("balanced_ce", "alpha", [2, "image"]),
    ("ohem_ce", "threshold", [0, 1.5]),
    ("ohem_ce", "min_kept", [-1, 1.5]),
    ("topk_ce", "k", [0, 2]),
    ("dice", "smooth", [-1]),
    ("dice", "classes", ["foreground", [1, 1], [-1]]),
    ("tversky", "alpha", [-0.1]),
    ("tversky", "beta", [float("inf")]),
    ("focal_tversky", "gamma", [0]),
    ("lovasz_softmax", "bins", [1]),
    ("unified_focal", "delta", [1.2]),
    ("unified_focal", "gamma", [-0.5]),
    ("unified_focal", "weight_lambda", [2]),
    ("unified_focal", "reduction", ["sum"]),
    ("hausdorff", "alpha", [-1]),
    ("boundary", "spacing", [[0.0]]),
    ("dice_ce", "reduction", ["none"]),
]
OF_WRONG_TYPE: list[tuple[str, str, list]] = [
    ("focal", "gamma", ["2", True]),
    ("dice", "squared", [1]),
    ("dice", "per_image", ["yes"]),
    ("dice", "smooth", [None]),
    ("dice", "classes", [[0.5]]),
    ("lovasz_softmax", "bins", [2.5]),
]


@pytest.mark.parametrize(("name", "key", "values"), OUT_OF_RANGE)
def test_a_parameter_out_of_range_is_refused_when_the_loss_is_built(
    name: str, key: str, values: list
) -> None:
    for value in values:
        with named(value), pytest.raises(ValueError, match=key.rstrip("s")) as caught:
            losses.build(name, **{key: value})
        assert str(value).strip("[]") in str(caught.value)


def test_classes_and_scales_that_fit_no_loss_are_refused_when_it_is_built() -> None:
    for name, params, key in (
        ("dice", {"classes": []}, "classes?"),
        ("dice", {"classes": [0], "mode": "binary"}, "classes?.*0"),
        ("dice_ce", {"scales": [1.0]}, "scale"),
    ):
        with named(name, params), pytest.raises(ValueError, match=key):
            losses.build(name, **params)


@pytest.mark.parametrize(("name", "key", "values"), OF_WRONG_TYPE)
def test_a_parameter_of_the_wrong_type_is_refused_when_the_loss_is_built(
    name: str, key: str, values: list
) -> None:
    for value in values:
        with named(value), pytest.raises(TypeError, match=key):
            losses.build(name, **{key: value})


def test_classes_beyond_the_channels_are_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match=r"classes=\[1, 7\].*C=4"):
        losses.build("dice", classes=[1, 7])(Z, Y)


def test_distance_maps_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4, 3, 3\).*got \(2, 3, 3\)"):
        losses.build("boundary")(Z, Y, distance=torch.zeros(2, 3, 3))


def test_a_target_on_another_device_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"target.to\(logits.device\)"):
        losses.build("ce")(Z, Y.to("meta"))


def test_a_stray_label_is_found_without_a_host_synchronisation_under_compile() -> None:
    """Where values cannot be looked at, the check is an assertion on the device: present in the captured graph."""
    captured: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Any:
        captured.append(graph.code)
        return graph

    torch.compiler.reset()
    compiled = torch.compile(losses.build("ce"), backend=backend, fullgraph=True)
    compiled(Z, Y)
    assert "_assert_async" in captured[0]
    assert ".item()" not in captured[0]
    with pytest.raises(RuntimeError, match="integer labels from 0 to 3"):
        compiled(Z, Y + 300)
