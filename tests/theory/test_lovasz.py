"""What constant answers cost under Lovász-softmax."""

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


def test_a_loss_with_another_value_is_found(monkeypatch):
    build = losses.build
    hinge = lambda name, **options: build("lovasz_hinge" if options else name)  # noqa: E731
    monkeypatch.setattr(lovasz.losses, "build", hinge)
    with pytest.raises(ClosedFormError, match="costs"):
        lovasz.constant_answers((0.05,))
