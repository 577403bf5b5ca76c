"""Class weights from counts: the published definitions on numbers one can check by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cases import default_dtype

from lossatlas.losses import weights

# Three images of 10 pixels; class 2 only in the last, class 3 nowhere.
COUNTS = torch.tensor([[8, 2, 0, 0], [10, 0, 0, 0], [4, 5, 1, 0]])

EVERY_RULE = pytest.mark.parametrize(
    "make", [weights.inverse_frequency, weights.median_frequency, weights.enet_log, weights.effective_number],
    ids=lambda rule: rule.__name__,
)  # fmt: skip


def approx(values: list[float]) -> object:
    return pytest.approx(values, rel=1e-12)


def test_inverse_frequency_is_the_reciprocal_of_the_fraction_of_pixels() -> None:
    # f = 22/30, 7/30, 1/30
    got = weights.inverse_frequency(COUNTS, normalize=False)
    assert got.tolist() == approx([30 / 22, 30 / 7, 30, 0])
    scaled = weights.inverse_frequency(COUNTS)
    assert scaled[:3].mean().item() == pytest.approx(1)
    assert (scaled[:3] / scaled[0]).tolist() == approx([1, 22 / 7, 22])
    assert weights.inverse_frequency(COUNTS.sum(0), normalize=False).tolist() == approx(
        got.tolist()
    )


def test_median_frequency_over_the_images_that_hold_the_class_or_the_whole_set() -> None:
    # f = 22/30, 7/20, 1/10: median 7/20
    assert weights.median_frequency(COUNTS).tolist() == approx([0.35 / (22 / 30), 1, 3.5, 0])
    # f = 22/30, 7/30, 1/30: median 7/30
    whole = weights.median_frequency(COUNTS, definition="dataset")
    assert whole.tolist() == approx([7 / 22, 1, 7, 0])
    # f = .1 .2 .3 .4: the median is the mean of the middle two
    even = weights.median_frequency(torch.tensor([[1, 2, 3, 4]]))
    assert even.tolist() == approx([2.5, 1.25, 0.25 / 0.3, 0.625])


def test_enet_weights_lie_between_1_42_and_50_5() -> None:
    got = weights.enet_log([1, 0])
    assert got.tolist() == approx([1 / math.log(2.02), 1 / math.log(1.02)])
    assert got[0].item() == pytest.approx(1.42, abs=5e-3) and got[1].item() == pytest.approx(
        50.5, abs=5e-3
    )
    assert weights.enet_log([1, 0], absent=0.0)[1] == 0


def test_the_effective_number_follows_its_formula_and_saturates_on_pixel_counts() -> None:
    got = weights.effective_number([1, 3], beta=0.9, normalize=False)
    assert got.tolist() == approx([1.0, 0.1 / (1 - 0.9**3)])
    pixels = weights.effective_number([100_000, 10_000_000], beta=0.9999)
    assert pixels.tolist() == pytest.approx([1, 1], abs=1e-4)


@EVERY_RULE
def test_every_weight_is_finite_and_an_absent_class_has_the_stated_one(make: Any) -> None:
    assert make(COUNTS).isfinite().all()
    assert make(COUNTS, absent=0.25)[3] == 0.25
    for empty in (torch.zeros(2, 3, dtype=torch.long), torch.zeros(0, 3, dtype=torch.long)):
        assert make(empty).isfinite().all() and make(empty).shape == (3,)


@EVERY_RULE
def test_counts_that_are_no_counts_are_refused(make: Any) -> None:
    for wrong in (
        torch.tensor([[1.0, -1.0]]),
        torch.tensor([[1.0, float("nan")]]),
        torch.zeros(2, 2, 2),
    ):
        with pytest.raises(ValueError, match="counts"):
            make(wrong)


def test_median_frequency_wants_counts_per_image_and_a_known_definition() -> None:
    with pytest.raises(ValueError, match=r"\(N, C\).*image_counts"):
        weights.median_frequency(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="dataset"):
        weights.median_frequency(COUNTS, definition="datset")


def test_image_counts_count_each_image_and_leave_void_out() -> None:
    targets = [torch.tensor([[0, 0, 1], [255, 2, 2]]), torch.tensor([1, 1])]
    got = weights.image_counts(targets, 4, ignore_index=255)
    assert got.tolist() == [[2, 1, 2, 0], [0, 2, 0, 0]] and got.dtype == torch.int64
    assert weights.image_counts(torch.tensor([[0, 1], [1, 1]]), 2).tolist() == [[1, 1], [0, 2]]
    assert weights.image_counts(iter(targets), 4, ignore_index=255, max_images=1).tolist() == [
        [2, 1, 2, 0]
    ]
    assert weights.image_counts([], 3).shape == (0, 3)


def test_image_counts_refuse_labels_that_are_no_class() -> None:
    with pytest.raises(ValueError, match=r"0 to 1.*image 1"):
        weights.image_counts([torch.tensor([0]), torch.tensor([2])], 2)
    with pytest.raises(TypeError, match="integer"):
        weights.image_counts([torch.tensor([0.5])], 2)


def test_counts_in_a_list_are_taken_as_they_are_whatever_the_default_dtype() -> None:
    for default in (torch.float32, torch.float16):
        with default_dtype(default):
            got = weights.inverse_frequency([0.1, 0.9], normalize=False)
            large = weights.inverse_frequency([3e6, 1e6], normalize=False)
            median = weights.median_frequency([[0.1, 0.9]])
        assert got.tolist() == approx([10, 1 / 0.9])
        assert large.tolist() == approx([4 / 3, 4])
        assert median.tolist() == approx([5, 0.5 / 0.9])


def test_weights_from_shares_are_those_from_counts() -> None:
    shares = COUNTS.double() / COUNTS.sum()
    for make in (weights.enet_log, weights.median_frequency, weights.inverse_frequency):
        for definition in ("present", "dataset") if make is weights.median_frequency else (None,):
            given = {} if definition is None else {"definition": definition}
            assert make(shares, **given).tolist() == approx(make(COUNTS, **given).tolist())
    assert weights.enet_log([0.1, 0.1]).tolist() == approx([1 / math.log(1.52)] * 2)
