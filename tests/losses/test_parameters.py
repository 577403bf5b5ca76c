"""Parameters are declared once: what signatures show, what a wrong name is told.

What type checkers see is in ``typed.py``, which mypy reads in ``make lint``.
"""

from __future__ import annotations

import inspect

import pytest

from lossatlas import losses

CLASSES = [
    cls
    for name in losses.__all__
    if inspect.isclass(cls := getattr(losses, name)) and cls is not losses.CompoundLoss
]


def test_every_class_shows_all_parameters_that_it_takes_and_no_open_end() -> None:
    for cls in CLASSES:
        shown = inspect.signature(cls).parameters
        assert {"mode", "weight", "ignore_index", "reduction"} <= shown.keys(), cls
        assert all(p.kind is p.KEYWORD_ONLY for p in shown.values()), cls
        cls(**{name: p.default for name, p in shown.items()})


def test_a_loss_object_shows_the_signature_of_its_call() -> None:
    assert "gamma" not in inspect.signature(losses.FocalLoss()).parameters


def test_a_misspelt_parameter_gets_the_near_match_from_class_function_and_compound() -> None:
    for cls in CLASSES:
        with pytest.raises(TypeError, match=rf"{cls.__name__} .*'ignore_idx'.*'ignore_index'"):
            cls(ignore_idx=255)
    with pytest.raises(TypeError, match=r"'gama'.*'gamma'"):
        losses.functional.focal_loss(None, None, gama=1.0)
    with pytest.raises(TypeError, match=r"'smoth'.*'smooth'"):
        losses.build("dice_ce", smoth=1.0)


def test_a_parameter_that_a_loss_cannot_honour_is_refused_with_the_reason() -> None:
    for name in ("ohem_ce", "topk_ce", "lovasz_softmax", "lovasz_hinge", "dice_topk", "ce_lovasz"):
        with pytest.raises(TypeError, match=r"takes no process_group: it .* one process"):
            losses.build(name, process_group="world")
    for cls in (losses.LovaszHingeLoss, losses.BoundaryLoss, losses.HausdorffLoss):
        with pytest.raises(TypeError, match=r"takes no smooth: its formula has no ratio"):
            cls(smooth=1.0)


def test_compounds_hand_the_process_group_to_every_part() -> None:
    for name in ("dice_ce", "dice_focal"):
        parts = losses.build(name, process_group="world").parts
        assert [part.process_group for part in parts] == ["world", "world"]


def test_a_subclass_of_yours_states_its_own_parameters_and_shows_the_common_ones() -> None:
    class Shifted(losses.FocalLoss):
        def __init__(self, *, shift: float = 0.0, **common) -> None:
            super().__init__(**common)
            self.shift = shift

    assert {"shift", "gamma", "mode"} <= inspect.signature(Shifted).parameters.keys()
    with pytest.raises(TypeError, match=r"Shifted .*'shft'.*'shift'"):
        Shifted(shft=1.0)
