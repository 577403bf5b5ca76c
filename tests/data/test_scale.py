"""A folder of 100,000 files is checked in memory that does not follow the pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_CHECK = """
import resource, sys
from lossatlas.data.checking import check_folder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = check_folder(sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(f.severity == "error" for f in found), len(found), (after - before) // 1024)
"""
#: Names that one file may have; ext4 allows 65,000.
_LINKS = 10_000


def crowd(root: Path, pairs: int, side: int) -> Path:
    """So many pairs of images and masks, hard links to a few files."""
    rng = np.random.default_rng(0)
    for part, high in (("images", 256), ("masks", 2)):
        (root / part).mkdir(parents=True)
        for index in range(pairs):
            if index % _LINKS == 0:
                source = root / part / f"{index}.png"
                Image.fromarray(rng.integers(0, high, (side, side), dtype=np.uint8)).save(source)
            else:
                os.link(source, root / part / f"{index}.png")
    (root / "classes.yaml").write_text("classes: [background, thing]")
    return root


def checked(root: Path) -> tuple[int, int, int]:
    """(kinds of error, findings, MiB that the check took at its peak) in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, str(root)], capture_output=True, text=True, check=True
    )
    errors, findings, mib = (int(value) for value in done.stdout.split())
    return errors, findings, mib


def test_the_memory_of_a_check_does_not_follow_the_number_of_pixels(tmp_path):
    """100 images of 1 MiB: held together they would take 100 MiB."""
    errors, _, mib = checked(crowd(tmp_path, 100, 1024))
    assert errors == 0
    assert mib < 50, mib


@pytest.mark.extended
@pytest.mark.timeout(3600)
def test_a_folder_of_100_000_files_is_checked_in_bounded_memory(tmp_path):
    errors, findings, mib = checked(crowd(tmp_path, 50_000, 16))
    assert errors == 0 and findings >= 1  # the same picture twice is noted
    assert mib < 250
