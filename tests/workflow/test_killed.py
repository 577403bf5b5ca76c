"""``kill -9`` of a comparison, of the training notebook and of a build of the book: the same command ends well.

They take minutes, so they run once a week. A training alone is killed at twenty moments in
``tests/experiments/test_resume.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pytest
from checkouts import ROOT, end, start, under_way, wait_for
from PIL import Image

from lossatlas.book import BUILT

pytestmark = [pytest.mark.extended, pytest.mark.timeout(3600)]


def killed(process, *others):
    """End processes as a machine without memory does: nothing can be said or saved."""
    for pid in (*others, process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def finished(folder, *arguments):
    """The output of a command that must end well."""
    process = start(folder, *arguments)
    said, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, said
    return said


def records(runs_dir):
    """The finished runs, by folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in runs_dir.glob("*/run.json")}


def drawn(folder):
    """A folder of sixteen images with a bright strip, and their masks."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(16):
        mask = np.zeros((32, 32), np.uint8)
        mask[8 : 12 + number % 8, 4:28] = 1
        image = (90 * mask + generator.integers(0, 90, mask.shape)).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def test_a_comparison_that_is_killed_goes_on_with_what_it_had(tmp_path):
    drawn(tmp_path / "cracks")
    command = ["compare", "cracks", "--losses", "ce,dice", "--budget", "3m", "--out", "out"]
    runs_dir = tmp_path / "out" / "runs"
    process = start(tmp_path, *command)
    try:
        wait_for(lambda: records(runs_dir) and under_way(runs_dir, seed=1, after=10), process)
        before = {
            name: (runs_dir / name / "run.json").stat().st_mtime_ns for name in records(runs_dir)
        }
        killed(process)
    finally:
        end(process)
    assert before and not (tmp_path / "out" / "index.html").exists()

    finished(tmp_path, *command)
    assert (tmp_path / "out" / "index.html").is_file()
    there = records(runs_dir)
    assert len(there) > len(before) and {each["status"] for each in there.values()} == {"completed"}
    after = {name: (runs_dir / name / "run.json").stat().st_mtime_ns for name in before}
    assert after == before, "a finished run is not trained again"


def test_a_notebook_that_is_killed_with_its_kernel_goes_on_with_what_it_had(tmp_path):
    command = [
        *(sys.executable, "-m", "papermill", str(ROOT / "notebooks" / "train.ipynb"), "out.ipynb"),
        *("-k", "python3", "--no-progress-bar"),
        *("-p", "steps", "300", "-p", "batch_size", "4", "-y", "{seeds: [0, 1]}"),
        *("-y", "{dataset_params: {image_size: 16, objects: 1, train_size: 8, val_size: 4, test_size: 4}}"),
        *("-y", "{model_params: {width: 4, depth: 2}}"),
    ]  # fmt: skip
    runs_dir = tmp_path / "runs"
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        beat = wait_for(lambda: under_way(runs_dir, seed=1, after=10), process)
        assert beat["pid"] != process.pid
        killed(process, beat["pid"])
    finally:
        end(process)
    (first,) = records(runs_dir)
    stamp = (runs_dir / first / "run.json").stat().st_mtime_ns

    again = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert [each["status"] for each in records(runs_dir).values()] == ["completed"] * 2
    assert (runs_dir / first / "run.json").stat().st_mtime_ns == stamp
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")


def test_a_build_of_the_book_that_is_killed_goes_on_and_is_whole(tmp_path):
    pytest.importorskip("jupyter_book", reason="the extra [book] is not installed")
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    pages = copy / "book" / "generated"
    process = subprocess.Popen(
        [sys.executable, "-m", "lossatlas.cli", "book"],
        cwd=copy,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(list(pages.glob("*.ipynb"))) >= 2, process)
        os.killpg(process.pid, signal.SIGKILL)  # with it Snakemake and the page that it executes
        process.communicate()
    finally:
        end(process)
    time.sleep(2)  # a kernel notices that it is an orphan
    made = {path.name: path.stat().st_mtime_ns for path in pages.glob("*.ipynb")}
    assert made and not (copy / BUILT).exists()

    assert "index.html" in finished(copy, "book")
    assert (copy / BUILT).is_file() and (copy / "book/_build/html/index.html").is_file()
    kept = [name for name, stamp in made.items() if (pages / name).stat().st_mtime_ns == stamp]
    assert kept, "no page that was whole is made again"
    shutil.rmtree(copy)
