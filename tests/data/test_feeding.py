"""The feed and its augmentation: the same values, ahead of time; labels move with their images."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from lossatlas import data
from lossatlas.data.augment import Augment
from lossatlas.data.errors import DataError
from lossatlas.data.feeding import feed

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", "train", train_size=20)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_feed_gives_the_values_of_the_dataset_in_order(digits):
    order = [[0, 3, 5], [7, 7, 1], [19, 2, 4]]
    fed = list(feed(digits, order))
    for (images, target), indices in zip(fed, order, strict=True):
        expected = digits.batch(indices)
        torch.testing.assert_close(images, expected[0], rtol=0, atol=0)
        assert torch.equal(target, expected[1])


def feeding_threads():
    """Those that are there now: a test before may have left one behind that has not ended yet."""
    return {thread for thread in threading.enumerate() if thread.name == "lossatlas-feed"}


def test_the_feed_looks_ahead_but_not_far_and_stops_its_thread(digits):
    asked, before = [], feeding_threads()

    def order():
        for i in range(100):
            asked.append(i)
            yield [i % 20]

    feeding = feed(digits, order(), ahead=3)
    next(feeding)
    time.sleep(0.3)
    assert 3 <= len(asked) <= 6
    feeding.close()
    assert feeding_threads() <= before


def test_an_error_in_the_thread_reaches_the_loop(digits):
    before = feeding_threads()
    feeding = feed(digits, [[0], [99]])
    next(feeding)
    with pytest.raises(IndexError):
        next(feeding)
    assert feeding_threads() <= before


def test_an_augmented_feed_depends_on_its_seed_alone(digits):
    augment = Augment(scale=(0.5, 2), crop=(32, 48), colour=0.1)
    runs = [
        list(feed(digits, [[0, 1], [2, 3]], augment=augment, seed=s, ahead=a))
        for s, a in ((1, 1), (1, 5), (2, 1))
    ]
    assert runs[0][0][0].shape == (2, 1, 32, 48) and runs[0][0][1].shape == (2, 32, 48)
    for (x, y), (u, v) in zip(runs[0], runs[1], strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)
    assert not torch.equal(runs[0][0][0], runs[2][0][0])


# -- augmentation --------------------------------------------------------------------------------


def coordinates(height=24, width=40, batch=6):
    """Images whose two channels are the pixel's row and column; targets that say the same."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = torch.stack([rows, columns]).float().expand(batch, 2, height, width).contiguous()
    target = ((rows // 4) * 10 + columns // 4).expand(batch, height, width).contiguous()
    return images, target


def test_flips_move_image_and_label_alike_and_keep_the_values():
    images, target = coordinates(batch=40)
    flipped, labels = Augment(vertical_flip=True)(images, target, gen())
    kinds = set()
    for x, y in zip(flipped, labels, strict=True):
        assert torch.equal(y, (x[0] // 4 * 10 + x[1] // 4).long())
        kinds.add((bool(x[0, 0, 0] > 0), bool(x[1, 0, 0] > 0)))
    assert len(kinds) == 4, "both flips, alone and together, in forty pictures"


def test_a_crop_is_an_exact_window_of_image_and_label():
    images, target = coordinates()
    cropped, labels = Augment(horizontal_flip=False, crop=(8, 12))(images, target, gen())
    assert cropped.shape == (6, 2, 8, 12)
    starts = set()
    for x, y in zip(cropped, labels, strict=True):
        whole = x.round()
        torch.testing.assert_close(x, whole, atol=1e-3, rtol=0)
        assert whole[0, :, 0].tolist() == [whole[0, 0, 0] + i for i in range(8)]
        assert whole.min() >= 0 and whole[0].max() <= 23 and whole[1].max() <= 39
        assert torch.equal(y, (whole[0] // 4 * 10 + whole[1] // 4).long())
        starts.add(round(float(x[1, 0, 0])))
    assert len(starts) > 3


def test_scaling_enlarges_and_shrinks_and_keeps_label_values():
    images, target = coordinates(batch=30)
    scaled, labels = Augment(horizontal_flip=False, scale=(0.5, 2))(images, target, gen(1))
    steps = (scaled[:, 1, 12, 21] - scaled[:, 1, 12, 20]).sort().values
    assert 0.45 < steps[0] < 0.7 and 1.5 < steps[-1] < 2.05
    assert set(labels.unique().tolist()) <= set(target.unique().tolist())


def test_pixels_from_outside_become_void_where_there_is_void():
    images, target = coordinates()
    shrink = {"horizontal_flip": False, "scale": (0.5, 0.5)}
    void = Augment(**shrink, ignore_index=255)(images, target, gen())
    share = (void[1] == 255).float().mean()
    assert 0.7 < share < 0.8  # half of each side: a quarter of the picture is inside
    assert (void[0][:, 1][void[1] == 255] <= 39).all()
    border = Augment(**shrink)(images, target, gen())[1]
    assert set(border.unique().tolist()) <= set(target.unique().tolist())


def test_colour_changes_images_alone_and_each_differently():
    images, target = coordinates()
    images = images * 0 + 1
    changed, labels = Augment(horizontal_flip=False, colour=0.2)(images, target, gen())
    assert torch.equal(labels, target)
    assert len({round(float(v), 5) for v in changed[:, 0, 0, 0]}) == 6
    assert (changed - changed[:, :, :1, :1]).abs().max() < 1e-6  # constant within a picture


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"scale": (2, 1)}, "scale"),
        ({"scale": (0, 1)}, "scale"),
        ({"crop": (0, 5)}, "crop"),
        ({"crop": (5,)}, "crop"),
        ({"colour": -1}, "colour"),
        ({"horizontal_flip": 1}, "horizontal_flip"),
    ],
)
def test_impossible_augmentations_are_refused(params, message):
    with pytest.raises(data.DataError, match=message):
        Augment(**params)
    with pytest.raises(data.DataError, match=r"expected images \(B, C, H, W\)"):
        Augment()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 5), gen())


def _specks(batch=200, size=40):
    """A batch of pictures with one foreground pixel each, but the first, which has none."""
    target = torch.zeros(batch, size, size, dtype=torch.long)
    places = torch.randint(0, size, (batch, 2), generator=torch.Generator().manual_seed(1))
    target[torch.arange(batch), places[:, 0], places[:, 1]] = 1
    target[0] = 0
    return target[:, None].float(), target


def test_a_share_of_the_windows_holds_foreground_and_the_others_lie_as_without_it():
    images, target = _specks()
    kwargs = {"horizontal_flip": True, "vertical_flip": True, "crop": (8, 6)}
    for share, least, most in ((1.0, 199, 199), (0.5, 90, 125)):
        augment = Augment(**kwargs, crop_foreground=share)
        x, y = augment(images, target, torch.Generator().manual_seed(0))
        found = int(y.flatten(1).any(1).sum())
        assert least <= found <= most
        assert torch.equal(x[:, 0].round().long(), y), "image and label take the same window"
    plain = Augment(**kwargs)(images, target, torch.Generator().manual_seed(0))[1]
    assert plain.flatten(1).any(1).sum() < 20


def test_the_pixel_of_a_foreground_window_lies_anywhere_in_it():
    target = torch.zeros(400, 40, 40, dtype=torch.long)
    target[:, 20, 20] = 1
    augment = Augment(horizontal_flip=False, crop=(4, 4), crop_foreground=1.0)
    y = augment(target[:, None].float(), target, torch.Generator().manual_seed(0))[1]
    assert y.sum(0).min() > 5, "each of the 16 places, about 25 times"


def test_void_is_no_foreground_of_a_window():
    target = torch.zeros(50, 40, 40, dtype=torch.long)
    target[:, 0, 0] = 255
    augment = Augment(horizontal_flip=False, crop=(4, 4), crop_foreground=1.0, ignore_index=255)
    y = augment(target[:, None].float(), target, torch.Generator().manual_seed(0))[1]
    assert (y == 255).flatten(1).any(1).sum() < 5


def test_foreground_windows_without_a_crop_are_refused():
    with pytest.raises(DataError, match="crop_foreground: expected a crop"):
        Augment(crop_foreground=0.5)
