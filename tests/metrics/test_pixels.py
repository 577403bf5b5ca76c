"""The sample of pixels: what it stands for, and that it depends on the labels alone."""

from __future__ import annotations

import numpy as np
import pytest

from lossatlas.metrics.pixels import sample_pixels


@pytest.fixture(scope="module")
def labels():
    """Squares of foreground in three pictures of 60×60, and a strip of void."""
    found = np.zeros((3, 60, 60), np.int64)
    found[:, 10:30, 10:30] = 1
    found[:, 50:] = 255
    return found


def test_each_stratum_stands_for_all_its_pixels(labels):
    found = sample_pixels(labels, 255, sizes=(100, 100, 100))
    near = 3 * (28**2 - 20**2)
    far = 3 * (50 * 60) - 3 * 28**2
    kinds = {round(float(w), 6) for w in found.weight}
    assert kinds == {12.0, near / 100, round(far / 100, 6)}
    assert found.weight.sum() == pytest.approx(3 * 50 * 60)
    assert found.weight[found.label == 1].sum() == pytest.approx(3 * 400)


def test_void_is_not_drawn_and_no_pixel_twice(labels):
    found = sample_pixels(labels, 255, sizes=(10**6, 10**6, 10**6))
    assert len(found.index) == len(set(found.index)) == 3 * 50 * 60
    assert (labels.reshape(-1)[found.index] == found.label).all()


def test_the_overlap_of_two_masks_is_that_of_the_sample(labels):
    rng = np.random.default_rng(1)
    masks = [np.roll(labels == 1, shift, (1, 2)) for shift in ((2, 1), (-1, 2))]
    sample = sample_pixels(labels, 255, sizes=(900, 900, 900), seed=int(rng.integers(9)))
    a, b = (mask.reshape(-1)[sample.index] for mask in masks)
    known = labels != 255
    true = 2 * (masks[0] & masks[1] & known).sum() / sum((m & known).sum() for m in masks)
    w = sample.weight
    assert 2 * w[a & b].sum() / (w[a].sum() + w[b].sum()) == pytest.approx(true, abs=0.02)


def test_other_labels_are_refused():
    with pytest.raises(ValueError, match=r"expected \(N, H, W\) of 0, 1"):
        sample_pixels(np.full((1, 4, 4), 2))


@pytest.mark.parametrize(
    "sizes", [(0, 4, 4), (4, 4, -1), (4, 4), 4, (4, 4.5, 4), "444", (4, 4, 4, 4)]
)
def test_sizes_that_draw_nothing_of_a_stratum_are_refused(labels, sizes):
    with pytest.raises(ValueError, match="sizes: expected"):
        sample_pixels(labels, 255, sizes=sizes)
    sample_pixels(labels, 255, sizes=[1, 1, 1])
