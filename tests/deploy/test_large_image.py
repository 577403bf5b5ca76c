"""Images that do not fit into a network are predicted by tiles and evaluated in strips."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lossatlas import deploy
from lossatlas.data import DataError
from lossatlas.metrics import ConfusionMatrix

_PREDICT = """
import resource, sys
import numpy as np
from lossatlas import deploy

run, folder, side, tile = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
trained = deploy.load(run)
image = np.load(f"{folder}/image.npy", mmap_mode="r")
warm = np.asarray(image[: 2 * tile, : 2 * tile])
deploy.predict_image(trained, warm, tile=tile)  # what libraries take is there before
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
labels, _ = deploy.predict_image(trained, image, tile=tile)
found = deploy.score(labels, np.load(f"{folder}/truth.npy", mmap_mode="r"), 2)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
np.save(f"{folder}/labels.npy", labels)
print((after - before) // 1024, *found.matrix.ravel().tolist())
"""


def predicted(run: Path, folder: Path, side: int) -> tuple[int, list[int]]:
    """(MiB taken, confusion) of a picture of noise and bright squares, in a process of its own."""
    shape = (side, side, 1)
    image = np.lib.format.open_memmap(folder / "image.npy", "w+", np.uint8, shape)
    truth = np.lib.format.open_memmap(folder / "truth.npy", "w+", np.uint8, shape[:2])
    rng = np.random.default_rng(0)
    for start in range(0, side, 500):
        rows = min(500, side - start)
        mask = np.kron(rng.random((-(-rows // 20), -(-side // 20))) < 0.1, np.ones((20, 20)))
        truth[start : start + rows] = mask[:rows, :side]
        noise = rng.integers(0, 156, (rows, side), np.uint8)
        image[start : start + rows, :, 0] = noise + 100 * truth[start : start + rows]
    image.flush()
    truth.flush()
    done = subprocess.run(
        [sys.executable, "-c", _PREDICT, str(run), str(folder), str(side), "512"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    mib, *matrix = (int(value) for value in done.stdout.split())
    return mib, matrix


def check(run: Path, folder: Path, side: int, *, windows: int) -> int:
    """Predict, compare with windows that are predicted whole, and recount; MiB taken."""
    mib, matrix = predicted(run, folder, side)
    image, truth, labels = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("image", "truth", "labels")
    )
    assert sum(matrix) == side * side and min(matrix) > 0
    recount = sum(
        np.bincount((2 * truth[r : r + 500].astype(int) + labels[r : r + 500]).ravel(), minlength=4)
        for r in range(0, side, 500)
    )
    assert matrix == recount.tolist()
    trained, rng, margin, wide = deploy.load(run), np.random.default_rng(1), 128, 512
    for top, left in rng.integers(0, (side - wide) // 64, (windows, 2)) * 64:
        whole, _ = deploy.predict_image(
            trained, np.asarray(image[top : top + wide, left : left + wide]), tile=0
        )
        inner = (slice(margin, -margin),) * 2
        part = np.asarray(labels[top : top + wide, left : left + wide])
        assert (part[inner] != whole[inner]).mean() < 1e-4  # round-off at the threshold
    return mib


def test_a_large_image_by_tiles_is_as_its_windows_and_its_counts_add_up(run, tmp_path):
    check(run, tmp_path, 1300, windows=3)


def test_strips_count_what_the_whole_counts():
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 3, (2, 1301, 77), np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    whole = ConfusionMatrix(3, 255)
    whole.update(torch.from_numpy(labels)[None], torch.from_numpy(truth)[None])
    found = deploy.score(labels, truth, 3, void=255)
    np.testing.assert_array_equal(found.matrix, whole.matrix)
    with pytest.raises(DataError, match="one size"):
        deploy.score(labels, truth[1:], 3)


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_an_image_of_20_000_by_20_000_is_predicted_and_evaluated_in_bounded_memory(run, tmp_path):
    """Whole, its first feature map alone would take 6 GiB."""
    mib = check(run, tmp_path, 20_000, windows=10)
    assert mib < 1200  # 381 MiB of labels, the pages of two memory maps of as much each, a tile
