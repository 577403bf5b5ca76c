"""Boundary metrics against hand arithmetic, an oracle of all pairs of pixels, and MONAI."""

from __future__ import annotations

import itertools
import math
import re
import sys

import numpy as np
import pytest
import torch
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from lossatlas import metrics
from lossatlas.metrics import (
    BoundaryMetrics,
    ObjectRecall,
    average_surface_distance,
    boundary_iou,
    hausdorff_distance,
    normalized_surface_dice,
    surface_distances,
)
from lossatlas.metrics.boundary import _f_score, _surface

SPACINGS: dict = {2: [None, 2.0, (0.5, 3.0)], 3: [None, (1.0, 1.0, 5.0)]}
CASES = [(d, s) for d in SPACINGS for s in SPACINGS[d]]


def blobs(seed: int, dimensions: int = 2):
    """Two overlapping shapes that touch the border here and there."""
    rng = np.random.default_rng(seed)
    shape = (18, 23) if dimensions == 2 else (6, 7, 5)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    masks = []
    for _ in range(2):
        mask = np.zeros(shape, dtype=bool)
        for _ in range(3):
            centre = rng.uniform(0, shape).reshape(-1, *[1] * dimensions)
            mask |= ((grid - centre) ** 2).sum(0) < rng.uniform(4, 20)
        masks.append(mask)
    return masks


# --- an oracle that is easy to believe ----------------------------------------------------------


def neighbours(index):
    for axis in range(len(index)):
        for step in (-1, 1):
            yield (*index[:axis], index[axis] + step, *index[axis + 1 :])


def oracle_surface(mask):
    inside = {tuple(i) for i in np.argwhere(mask)}
    return [i for i in sorted(inside) if any(n not in inside for n in neighbours(i))]


def oracle(pred, target, spacing, tolerance, width):
    spacing = 1.0 if spacing is None else np.array(spacing)
    apart = cdist(*(np.array(oracle_surface(mask)) * spacing for mask in (pred, target)))
    there, back = apart.min(1), apart.min(0)
    both = np.concatenate([there, back])
    precision, recall = (there <= tolerance).mean(), (back <= tolerance).mean()
    bands = []
    for mask in (pred, target):
        # one ring of pixels outside the image is enough: the nearest pixel outside is never further
        framed = np.pad(mask, 1)
        inside, outside = np.argwhere(framed), np.argwhere(~framed)
        near = cdist(inside * spacing, outside * spacing).min(1) <= width
        bands.append({tuple(i) for i in inside[near]})
    return {
        "hd": both.max(),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd": both.mean(),
        "nsd": (both <= tolerance).mean(),
        "bf": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "biou": len(bands[0] & bands[1]) / len(bands[0] | bands[1]),
    }


def ours(pred, target, spacing, tolerance, width):
    return {
        "hd": hausdorff_distance(pred, target, spacing=spacing),
        "hd95": hausdorff_distance(pred, target, percentile=95, spacing=spacing),
        "assd": average_surface_distance(pred, target, spacing=spacing),
        "nsd": normalized_surface_dice(pred, target, tolerance=tolerance, spacing=spacing),
        "bf": _f_score(*surface_distances(pred, target, spacing=spacing), tolerance),
        "biou": boundary_iou(pred, target, distance=width, spacing=spacing),
    }


@pytest.mark.parametrize(("dimensions", "spacing"), CASES)
@pytest.mark.parametrize("seed", range(2))
def test_every_number_equals_an_oracle_of_all_pairs_of_pixels(seed, dimensions, spacing):
    pred, target = blobs(seed, dimensions)
    expected = oracle(pred, target, spacing, 1.6, 3.0)
    assert ours(pred, target, spacing, 1.6, 3.0) == pytest.approx(expected, abs=1e-12)
    found = np.argwhere(_surface(np.pad(pred, 1))) - 1
    assert [tuple(i) for i in found] == oracle_surface(pred)


def one_hot(mask):
    return torch.from_numpy(np.stack([~mask, mask]).astype(np.float32))[None]


@pytest.mark.parametrize(("dimensions", "spacing"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_distances_and_surface_dice_equal_monai(seed, dimensions, spacing):
    monai = pytest.importorskip("monai.metrics")
    pred, target = blobs(seed + 10, dimensions)
    pair, kwargs = (one_hot(pred), one_hot(target)), {"spacing": spacing}
    found = ours(pred, target, spacing, 1.6, 3.0)
    theirs = {
        "hd": monai.compute_hausdorff_distance(*pair, **kwargs),
        "hd95": monai.compute_hausdorff_distance(*pair, percentile=95, **kwargs),
        "assd": monai.compute_average_surface_distance(*pair, symmetric=True, **kwargs),
        "nsd": monai.compute_surface_dice(*pair, class_thresholds=[1.6], **kwargs),
    }
    for name, value in theirs.items():
        assert found[name] == pytest.approx(value.item(), rel=1e-5), name


def test_elements_weighted_by_their_area_give_another_surface_dice():
    """MONAI's subvoxels are DeepMind's definition; pixels that are no cubes show the difference."""
    monai = pytest.importorskip("monai.metrics")
    pred, target = blobs(12, 3)
    spacing = (1.0, 1.0, 5.0)
    weighted = monai.compute_surface_dice(
        one_hot(pred), one_hot(target), class_thresholds=[1.6], spacing=spacing, use_subvoxels=True
    ).item()
    counted = normalized_surface_dice(pred, target, tolerance=1.6, spacing=spacing)
    assert abs(weighted - counted) > 0.01
    assert abs(weighted - counted) < 0.2


# --- by hand ------------------------------------------------------------------------------------


def square(size=12, low=2, high=6, shift=0):
    mask = np.zeros((size, size), dtype=bool)
    mask[low:high, low + shift : high + shift] = True
    return mask


def test_a_square_moved_by_one_pixel_by_hand():
    # The outline of a 4×4 square has 12 pixels. Moved sideways by one, 3 pixels of its upper and of its lower
    # side still lie on the old outline (6 of distance 0), the other 6 are 1 away.
    there, back = surface_distances(square(shift=1), square())
    assert sorted(there) == sorted(back) == [0.0] * 6 + [1.0] * 6
    pair = square(shift=1), square()
    assert hausdorff_distance(*pair) == hausdorff_distance(*pair, percentile=95) == 1
    assert average_surface_distance(*pair) == 0.5
    assert normalized_surface_dice(*pair, tolerance=0) == 0.5
    assert normalized_surface_dice(*pair, tolerance=1) == 1
    # bands of one pixel: 12 + 12 pixels, of which 6 are shared: 6/18
    assert boundary_iou(*pair, distance=1) == pytest.approx(6 / 18)
    # bands as wide as the square: the IoU, 12 shared of 20
    assert boundary_iou(*pair, distance=9) == pytest.approx(12 / 20)


def test_the_tolerance_of_segnet_is_four_and_a_half_pixels_of_its_images():
    target, near, far = np.zeros((3, 360, 480), dtype=bool)
    target[100], near[104], far[105] = True, True, True
    for pred, expected in ((near, 1), (far, 0)):
        found = counted(BoundaryMetrics(2), pred[None].astype(int), target[None].astype(int))
        assert found.rows()[1]["boundary_f"] == expected


def test_the_band_of_boundary_iou_is_two_per_cent_of_the_diagonal():
    # 360×480: 12 pixels. A frame of 12 pixels around an inner hole is band through and through.
    full, frame = np.zeros((2, 360, 480), dtype=bool)
    full[100:200, 100:200] = True
    frame[100:200, 100:200] = True
    frame[112:188, 112:188] = False
    assert boundary_iou(full, frame) == 1.0
    frame[112, 112:188] = True
    assert boundary_iou(full, frame) < 1.0
    # 64×64: 1.8 pixels, rounded to 2
    small = np.zeros((64, 64), dtype=bool)
    small[10:30, 10:30] = True
    hole = small.copy()
    hole[12:28, 12:28] = False
    assert boundary_iou(small, hole) == 1.0


def eroded_band(mask, steps):
    """The band as the authors' code makes it: the mask less its erosion by a 3×3 square, ``steps`` times."""
    from scipy.ndimage import binary_erosion

    return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=steps)


def test_the_band_is_that_of_the_authors_code_on_rectangles_and_narrower_at_reflex_corners():
    def by_erosion(a, b):
        first, second = eroded_band(a, 2), eroded_band(b, 2)
        return (first & second).sum() / (first | second).sum()

    pair = square(20, 3, 15), square(20, 3, 15, shift=2)
    assert boundary_iou(*pair, distance=2) == pytest.approx(by_erosion(*pair))
    bent = square(20, 3, 15)
    bent[9:, 9:] = False
    moved = np.roll(bent, 1, axis=0)
    assert boundary_iou(bent, moved, distance=2) != pytest.approx(by_erosion(bent, moved))
    assert boundary_iou(bent, moved, distance=2) == pytest.approx(by_erosion(bent, moved), abs=0.05)


# --- empty masks --------------------------------------------------------------------------------


def test_two_empty_masks_are_undefined():
    empty = np.zeros((5, 5), dtype=bool)
    assert all(math.isnan(v) for v in ours(empty, empty, None, 1, 2).values())
    assert [len(d) for d in surface_distances(empty, empty)] == [0, 0]


@pytest.mark.parametrize("missed", [True, False])
def test_one_empty_mask_scores_zero_at_an_infinite_distance(missed):
    full, empty = square(), np.zeros((12, 12), dtype=bool)
    found = ours(*((empty, full) if missed else (full, empty)), None, 1, 2)
    inf = math.inf
    assert found == {"hd": inf, "hd95": inf, "assd": inf, "nsd": 0, "bf": 0, "biou": 0}


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_mask_is_perfect_beside_itself(dimensions):
    mask = np.zeros((6,) * dimensions, dtype=bool)
    mask[(slice(1, 5),) * dimensions] = True
    found = ours(mask, mask, None, 0, 1)
    assert found == {"hd": 0, "hd95": 0, "assd": 0, "nsd": 1, "bf": 1, "biou": 1}


# --- properties ---------------------------------------------------------------------------------

masks = hnp.arrays(bool, (7, 9))


@settings(max_examples=40, deadline=None)
@given(masks, masks, st.floats(0, 4))
def test_every_number_is_symmetric_and_moves_with_the_image(pred, target, tolerance):
    first = ours(pred, target, None, tolerance, 2)
    assert ours(target, pred, None, tolerance, 2) == pytest.approx(first, nan_ok=True)
    wider = [np.pad(m, ((3, 1), (0, 5))) for m in (pred, target)]
    assert ours(*wider, None, tolerance, 2) == pytest.approx(first, nan_ok=True)
    turned = [np.rot90(m) for m in (pred, target)]
    assert ours(*turned, None, tolerance, 2) == pytest.approx(first, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(masks, masks)
def test_the_numbers_are_ordered_as_their_definitions_say(pred, target):
    found = ours(pred, target, None, 1, 9)
    if not (pred.any() and target.any()):
        return
    assert found["assd"] <= found["hd"]
    assert found["hd95"] <= found["hd"]
    wider = normalized_surface_dice(pred, target, tolerance=2)
    assert found["nsd"] <= wider <= 1
    # a band as wide as the image is the whole mask
    assert found["biou"] == pytest.approx((pred & target).sum() / (pred | target).sum())


def test_tensors_and_arrays_of_any_integer_type_give_the_same():
    pred, target = blobs(1)
    expected = ours(pred, target, None, 1, 2)
    for convert in (torch.from_numpy, lambda m: m.astype(np.uint8), lambda m: m.tolist()):
        assert ours(convert(pred), convert(target), None, 1, 2) == expected


@pytest.mark.parametrize("spacing", [0.1, 0.3, 0.7, 1, 2.2])
def test_a_distance_of_as_many_pixels_as_the_tolerance_is_within_it(spacing):
    a, b = np.zeros((2, 1, 32), dtype=int)
    for pixels in range(1, 16):
        a[:], b[:] = 0, 0
        a[0, 1], b[0, 1 + pixels] = 1, 1
        for tolerance in (float(f"{pixels * spacing:.6g}"), pixels * spacing):
            assert normalized_surface_dice(a, b, tolerance=tolerance, spacing=spacing) == 1
        short = pixels * spacing * 0.999
        assert normalized_surface_dice(a, b, tolerance=short, spacing=spacing) == 0


def test_the_tolerance_of_the_boundary_f_score_includes_itself():
    """0.75 % of the diagonal of 400×800 pixels is √45, the distance of 3 by 6 pixels."""
    pred, target = np.zeros((2, 1, 400, 800), dtype=int)
    pred[0, 100, 100] = target[0, 103, 106] = 1
    assert counted(metrics.BoundaryMetrics(2), pred, target).rows()[1]["boundary_f"] == 1


# --- wrong calls --------------------------------------------------------------------------------


def test_wrong_input_says_what_was_expected():
    good = square()
    with pytest.raises(ValueError, match=r"same shape, got \(12, 12\) and \(11, 12\)"):
        boundary_iou(good, good[1:])
    with pytest.raises(ValueError, match="booleans or of 0 and 1, got dtype int64 with values"):
        hausdorff_distance(good * 3, good)
    with pytest.raises(ValueError, match="booleans or of 0 and 1, got dtype float64"):
        average_surface_distance(good * 0.5, good)
    with pytest.raises(ValueError, match="one positive number, or one for each of 2 axes"):
        hausdorff_distance(good, good, spacing=(1, 2, 3))
    with pytest.raises(ValueError, match="one positive number"):
        hausdorff_distance(good, good, spacing=0)
    for percentile in (950, -1, float("nan"), "95", [50, 95], None):
        with pytest.raises(ValueError, match="percentile: expected a number from 0 to 100, got"):
            hausdorff_distance(good, good, percentile=percentile)
    for tolerance in (-1, "1", [1, 2], None):
        with pytest.raises(ValueError, match="tolerance: expected a length, one number"):
            normalized_surface_dice(good, good, tolerance=tolerance)
    with pytest.raises(ValueError, match="at least one pixel"):
        boundary_iou(good, good, distance=0.5)


FUNCTIONS = {
    "surface_distances": surface_distances,
    "hausdorff_distance": hausdorff_distance,
    "average_surface_distance": average_surface_distance,
    "normalized_surface_dice": lambda *pair: normalized_surface_dice(*pair, tolerance=1),
    "boundary_iou": boundary_iou,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_channel_that_was_kept_is_refused_by_every_function_and_makes_no_surface(name):
    pair = square(shift=2), square()
    FUNCTIONS[name](*pair)
    for shape, remedy in (
        ((1, 12, 12), r"take a channel out with \.squeeze\(0\)"),
        ((12, 12, 1), r"\.squeeze\(2\)"),
        ((1, 1, 12, 12), r"give images one by one"),
        ((1, 12, 12), r"a volume of depth 1 as its slice, volume\[0\]"),
    ):
        told = rf"one image \(H, W\).*got {re.escape(str(shape))}.*{remedy}"
        with pytest.raises(ValueError, match=told):
            FUNCTIONS[name](*(mask.reshape(shape) for mask in pair))


def test_a_channel_that_was_kept_is_refused_for_a_set_and_leaves_nothing_behind():
    pred, target = (mask.astype(int)[None] for mask in (square(shift=2), square()))
    found = BoundaryMetrics(2)
    for convert in (np.asarray, torch.from_numpy):
        told = r"got \(1, 1, 12, 12\).*out of both with \.squeeze\(1\)"
        with pytest.raises(ValueError, match=told):
            found.update(convert(pred[:, None]), convert(target[:, None]))
    with pytest.raises(ValueError, match=r"\.squeeze\(3\)"):
        found.update(pred[..., None], target[..., None])
    assert found.rows()[1]["n"] == 0
    found.update(pred[:, None].squeeze(1), target[:, None].squeeze(1))
    assert found.rows()[1]["assd"] == average_surface_distance(pred[0], target[0])


def test_an_image_of_one_row_is_measured():
    pred, target = np.zeros((2, 1, 1, 6), dtype=int)
    pred[0, 0, 1:3], target[0, 0, 2:5] = 1, 1
    found = counted(BoundaryMetrics(2), pred, target)
    assert found.rows()[1]["assd"] == average_surface_distance(pred[0], target[0]) == 0.8


def test_without_scipy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"install lossatlas\[experiments\]"):
        hausdorff_distance(square(shift=1), square())
    # … and the overlaps do not need it
    assert metrics.iou_from_counts([[1, 1, 2]]).tolist() == [0.25]


# --- a whole set --------------------------------------------------------------------------------


def test_the_rows_of_a_set_are_means_over_its_images():
    rng = np.random.default_rng(0)
    target = np.zeros((5, 20, 20), dtype=np.int64)
    for image in target:
        for c in rng.permutation(4)[:3]:
            y, x = rng.integers(0, 14, 2)
            image[y : y + rng.integers(2, 7), x : x + rng.integers(2, 7)] = c
    pred = np.roll(target, 1, axis=1)
    pred[0][pred[0] == 1] = 0  # class 1 is missed in the first image
    for row in counted(BoundaryMetrics(4), pred, target).rows():
        c = row["class_index"]
        # 20×20: a band of 2 % of the diagonal is one pixel; BF has a tolerance of its own
        values = [
            ours(p == c, t == c, None, 1, 1)
            | {"bf": ours(p == c, t == c, None, 0.0075 * math.hypot(20, 20), 1)["bf"]}
            for p, t in zip(pred, target, strict=True)
        ]
        for name, key in [("boundary_iou", "biou"), ("boundary_f", "bf"), ("nsd", "nsd")]:
            defined = [v[key] for v in values if not math.isnan(v[key])]
            assert row[name] == pytest.approx(np.mean(defined))
            assert row["n"] == len(defined)
        for name in ("hd95", "assd"):
            finite = [v[name] for v in values if math.isfinite(v[name])]
            assert row[name] == pytest.approx(np.mean(finite))
            assert row["n_both"] == len(finite)


def test_a_class_that_is_nowhere_has_rows_of_nan_and_a_void_pixel_has_no_class():
    target = np.zeros((1, 6, 6), dtype=np.int64)
    target[0, 2:4, 2:4] = 1
    marked, pred = target.copy(), target.copy()
    marked[0, 5], pred[0, 5] = 255, 2  # class 2 is predicted in void alone
    rows = counted(BoundaryMetrics(3, 255), pred, marked).rows()
    assert rows[1]["boundary_iou"] == rows[1]["nsd"] == 1 and rows[1]["assd"] == 0
    assert rows[2]["n"] == 0
    assert all(
        math.isnan(rows[2][k]) for k in ("boundary_iou", "boundary_f", "nsd", "hd95", "assd")
    )


def test_a_volume_of_voxels_is_measured_like_an_image():
    pred, target = blobs(3, 3)
    found = BoundaryMetrics(2, spacing=(1, 1, 5))
    found.update(pred[None].astype(int), target[None].astype(int))
    row, expected = found.rows()[1], ours(pred, target, (1, 1, 5), 1, 1)
    assert row["assd"] == pytest.approx(expected["assd"])
    assert row["boundary_iou"] == pytest.approx(expected["biou"])
    assert row["nsd"] == pytest.approx(expected["nsd"])


# --- objects ------------------------------------------------------------------------------------


def oracle_objects(mask, diagonal):
    """Connected components by flood fill."""
    left, found = {tuple(i) for i in np.argwhere(mask)}, []
    while left:
        grow, component = [left.pop()], []
        while grow:
            pixel = grow.pop()
            component.append(pixel)
            near = (
                [tuple(np.add(pixel, s)) for s in itertools.product((-1, 0, 1), repeat=mask.ndim)]
                if diagonal
                else list(neighbours(pixel))
            )
            for other in near:
                if other in left:
                    left.remove(other)
                    grow.append(other)
        found.append(component)
    return found


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("covered", [0.5, 0.75, 1.0])
def test_found_objects_equal_a_flood_fill(diagonal, covered):
    rng = np.random.default_rng(0)
    target = (rng.random((4, 16, 16)) < 0.3).astype(int) * rng.integers(1, 3, (4, 1, 1))
    pred = np.where(rng.random(target.shape) < 0.7, target, 0)
    strata = (1, 2, 5, 12)
    expected = np.zeros((4, 2), dtype=int)
    for p, t in zip(pred, target, strict=True):
        for c in (1, 2):
            for component in oracle_objects(t == c, diagonal):
                row = max(k for k, low in enumerate(strata) if low <= len(component))
                share = np.mean([p[i] == c for i in component])
                expected[row] += 1, int(share >= covered)
    found = ObjectRecall(3, covered=covered, strata=strata, corners_touch=diagonal)
    found.update(pred, target)
    assert [(r["objects"], r["found"]) for r in found.rows()] == [tuple(e) for e in expected]
    assert [r["stratum"] for r in found.rows()] == ["1", "2–4", "5–11", "12+"]


def test_half_of_an_object_is_enough_and_less_is_not():
    target = np.zeros((1, 4, 8), dtype=int)
    target[0, 0, :4] = target[0, 3, :5] = 1  # objects of 4 and of 5 pixels
    pred = np.zeros_like(target)
    pred[0, 0, :2] = pred[0, 3, :2] = 1  # 2/4 and 2/5
    recall = counted(ObjectRecall(2, strata=(1, 5, 6)), pred, target)
    assert [(r["objects"], r["found"]) for r in recall.rows()] == [(1, 1), (1, 0), (0, 0)]
    assert recall.rows()[0]["recall"] == 1 and math.isnan(recall.rows()[2]["recall"])


def test_an_object_covered_by_another_class_is_not_found_and_the_background_is_no_object():
    target = np.ones((1, 3, 3), dtype=int)
    recall = counted(ObjectRecall(3), np.full_like(target, 2), target)
    assert sum(r["objects"] for r in recall.rows()) == 1
    assert sum(r["found"] for r in recall.rows()) == 0
    every = counted(ObjectRecall(3, classes=range(3)), np.zeros_like(target), np.zeros_like(target))
    assert sum(r["found"] for r in every.rows()) == 1


def test_the_spacing_of_a_set_is_that_of_its_beginning():
    spacing = [1.0, 1.0]
    reused, expected = BoundaryMetrics(2, spacing=spacing), BoundaryMetrics(2, spacing=(1.0, 1.0))
    spacing[:] = [3.0, 3.0]
    truth = np.zeros((1, 8, 8), dtype=int)
    truth[0, 2:6, 2:6] = 1
    for metric in (reused, expected):
        metric.update(np.roll(truth, 1, axis=2), truth)
    assert reused.rows()[1] == expected.rows()[1]
