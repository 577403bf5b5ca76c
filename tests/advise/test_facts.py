"""The facts of masks, against counts made by hand and the statistics of the data package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import save
from PIL import Image

from lossatlas.advise import facts
from lossatlas.data.dataset import SegmentationDataset
from lossatlas.data.errors import DataError
from lossatlas.data.statistics import shape_of_classes


def of(*labels: np.ndarray, classes=("background", "thing"), **options):
    return facts.measure(labels, classes, count=len(labels), **options)


def test_fractions_objects_and_empty_masks_are_those_counted_by_hand():
    mask = np.zeros((10, 10), int)
    mask[0:2, 0:2] = 1  # 4 pixels
    mask[5:9, 5:9] = 1  # 16 pixels
    found = of(mask, np.zeros((10, 10), int))
    (row,) = found["foreground"]
    assert found["empty_share"] == 0.5
    assert row["fraction"] == pytest.approx(20 / 200)
    assert (row["masks"], row["objects"], row["objects_per_mask"]) == (1, 2, 2.0)
    assert row["area_px"] == [7, 10, 13]  # quartiles of 4 and 16
    assert row["area_share"] == pytest.approx(0.16)  # 16 of the 20 pixels are in the larger object
    assert row["tiny_share"] == 0.5


def test_void_pixels_leave_every_count():
    mask = np.zeros((4, 4), int)
    mask[0] = 255
    mask[1, 0] = 1
    found = of(mask, void=255)
    assert found["void_share"] == pytest.approx(4 / 16)
    assert found["foreground"][0]["fraction"] == pytest.approx(1 / 12)


def test_a_strip_is_as_thin_as_its_length_over_its_width_and_a_square_is_compact():
    strip, square = np.zeros((60, 220), int), np.zeros((60, 220), int)
    strip[20:30, 10:210] = 1  # 10 by 200
    square[10:50, 10:50] = 1
    thin, compact = (of(m)["foreground"][0] for m in (strip, square))
    assert thin["thinness"] == pytest.approx(20, rel=0.15)
    assert thin["width_px"] == pytest.approx(10, rel=0.1)
    assert compact["thinness"] == pytest.approx(2.25, rel=0.1)


def test_specks_beside_a_strip_leave_the_class_thin():
    strip, specks = np.zeros((60, 220), int), np.zeros((60, 220), int)
    strip[20:30, 10:210] = 1
    specks[40::4, ::4] = 1  # 275 objects of a pixel
    alone, beside = (of(m)["foreground"][0] for m in (strip, strip | specks))
    assert beside["objects"] == 276 and beside["area_px"][1] == 1
    assert (beside["thinness"], beside["width_px"]) == (alone["thinness"], alone["width_px"])


def test_the_width_of_one_object_is_that_of_the_data_package():
    mask = np.zeros((40, 50), int)
    mask[7:19, 3:44] = 1
    image = np.zeros((1, 40, 50, 1), np.uint8)
    dataset = SegmentationDataset(
        name="one", split="train", images=image, labels=mask[None].astype(np.uint8),
        ids=["a"], groups=["a"], classes=("background", "thing"), mode="binary",
        ignore_index=None, mean=(0.5,), std=(0.25,), checksum="",
    )  # fmt: skip
    expected = shape_of_classes(dataset)[1]["width_px"]
    assert of(mask)["foreground"][0]["width_px"] == pytest.approx(expected)


def test_an_object_that_fills_the_image_has_no_width_and_no_thinness():
    (row,) = of(np.ones((8, 8), int))["foreground"]
    assert row["width_px"] is None and row["thinness"] is None


def test_only_some_masks_are_searched_for_objects_but_all_are_counted():
    masks = [np.eye(8, dtype=int) for _ in range(10)]
    found = of(*masks, shape_masks=3)
    assert found["searched"] == 3
    assert found["foreground"][0]["objects"] == 3
    assert found["foreground"][0]["masks"] == 10


def test_masks_alone_are_enough_in_a_folder_of_masks_or_in_the_folder_itself(tmp_path):
    mask = np.eye(8)
    save(tmp_path / "a" / "masks", {"x": mask})
    save(tmp_path / "b", {"x": mask})
    for root in ("a", "b"):
        read = facts.read_masks(tmp_path / root)
        assert read.layout.pairs == ["x"]
        assert (next(iter(read.labels())) == mask).all()


def test_what_masks_of_0_and_255_mean_is_asked_and_not_guessed(tmp_path):
    save(tmp_path / "masks", {"x": np.eye(8) * 255})
    with pytest.raises(DataError, match=r"values: \{0: background, 255: thing\}"):
        facts.read_masks(tmp_path)
    (tmp_path / "classes.yaml").write_text("values: {0: background, 255: crack}")
    assert facts.read_masks(tmp_path).classes == ("background", "crack")


def test_masks_named_by_their_folder_have_the_settings_beside_it(tmp_path, capsys):
    masks = save(tmp_path / "set" / "masks", dict.fromkeys("abc", np.eye(2) * 255))
    with pytest.raises(DataError) as asked:
        facts.read_masks(masks)
    assert f"class indices in {masks}, got" in str(asked.value)
    (tmp_path / "set" / "classes.yaml").write_text("values: {0: background, 255: crack}")
    (masks / "d.npz").write_bytes(b"")
    assert facts.read_masks(masks).classes == ("background", "crack")
    assert "passed over, no mask that is read: d.npz" in capsys.readouterr().err


def test_a_folder_without_masks_says_what_to_put_where(tmp_path):
    with pytest.raises(DataError, match="expected masks in"):
        facts.read_masks(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="masks/ beside images/"):
        facts.read_masks(tmp_path)


def test_annotators_agree_as_much_as_dice_by_hand_says(tmp_path):
    first, second = np.zeros((4, 4)), np.zeros((4, 4))
    first[0], second[0:2] = 1, 1  # 4 and 8 pixels, 4 in common
    save(tmp_path / "one", {"x": first, "y": first})
    save(tmp_path / "two", {"x": second})
    mine = facts.read_masks(tmp_path / "one")
    other = facts.read_masks(tmp_path / "two", like=mine)
    found = facts.disagreement(mine, other)
    assert found["masks"] == 1
    assert found["dice"] == {"class_1": pytest.approx(2 * 4 / 12)}


@pytest.mark.parametrize("other", ["{}_mask.png", "{}.png", "{}_mask.jpg"])
def test_what_the_first_annotator_declares_holds_for_the_names_and_kinds_of_the_second(
    tmp_path, other
):
    suffix = Path(other).suffix
    settings = f"masks: '{{stem}}_mask{suffix}'\nvalues: {{0: background, 255: crack}}"
    save(tmp_path / "one", {"x": np.eye(16) * 255})
    (tmp_path / "one" / "x.png").rename(tmp_path / "one" / f"x_mask{suffix}")
    (tmp_path / "one" / "classes.yaml").write_text(settings)
    (tmp_path / "two").mkdir()
    flat = Image.fromarray(np.full((16, 16), 255, np.uint8))  # JPEG keeps an even area
    flat.save(tmp_path / "two" / other.format("x"))
    mine = facts.read_masks(tmp_path / "one")
    both = facts.disagreement(mine, facts.read_masks(tmp_path / "two", like=mine))
    assert both["dice"] == {"crack": pytest.approx(2 * 16 / (16 + 256))}


def test_annotators_without_a_common_name_or_size_are_refused(tmp_path):
    save(tmp_path / "one", {"x": np.eye(4)})
    save(tmp_path / "two", {"y": np.eye(4)})
    save(tmp_path / "three", {"x": np.eye(5)})
    mine = facts.read_masks(tmp_path / "one")
    with pytest.raises(DataError, match="none in common"):
        facts.disagreement(mine, facts.read_masks(tmp_path / "two", like=mine))
    with pytest.raises(DataError, match="expected 4×4 pixels"):
        facts.disagreement(mine, facts.read_masks(tmp_path / "three", like=mine))


def test_background_alone_is_no_data_to_advise_on():
    with pytest.raises(DataError, match="expected foreground"):
        facts.rarest(of(np.zeros((4, 4), int)))
