"""What constant answers cost under Lovász-softmax."""

import math

import pytest

from lossatlas import losses
from lossatlas.theory import lovasz
from lossatlas.theory.calculus import ClosedFormError


def test_half_everywhere_is_cheaper_than_a_mask_below_one_half_but_for_two_channels():
    for jaccard, cheaper in ((0.4, False), (0.6, True)):
        found = lovasz.constant_answers((0.05,), jaccard).set_index("answer")
        half, mask = found.loc["½ everywhere"], found.loc["mask"]
        assert half["one sigmoid"] == pytest.approx(0.5)
        assert mask["one sigmoid"] == pytest.approx(1 - jaccard, abs=0.01)
        assert (mask["one sigmoid"] < half["one sigmoid"]) == cheaper
        assert mask["two channels"] < half["two channels"]
        assert half["hinge"] == pytest.approx(1)
        assert mask["hinge"] == pytest.approx(2 * (1 - jaccard), abs=0.02)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda z: z.unique().numel() == 1 and z.min() != 0, "the answer 0.02 costs"),
        (lambda z: z.unique().numel() > 3, "the foreground at ½ costs"),
    ],
)
def test_a_loss_with_another_value_is_found(monkeypatch, wrong, why):
    build = losses.build

    def other(name, **options):
        loss = build(name, **options)
        return lambda z, target: loss(z, target) + (0.01 if options and wrong(z) else 0)

    monkeypatch.setattr(lovasz.losses, "build", other)
    with pytest.raises(ClosedFormError, match=why):
        lovasz.constant_answers((0.05,))


def test_one_nan_among_the_vertices_is_not_passed_over(monkeypatch):
    build, calls = losses.build, iter(range(10_000))

    def other(name, **options):
        loss = build(name, **options)
        return lambda z, target: loss(z, target) * (float("nan") if next(calls) == 3 else 1)

    monkeypatch.setattr(lovasz.losses, "build", other)
    assert math.isnan(lovasz.equals_jaccard_at_vertices())
