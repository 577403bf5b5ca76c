"""Faults of machines: a build that is killed, two at once, a disk that is full."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lossatlas import book, cli

_HOLD = """
import sys, time
from lossatlas import book
with book._alone():
    print("held", flush=True)
    time.sleep(300)
"""


def test_two_builds_of_the_book_never_meet_and_a_killed_one_holds_nobody_up(
    tmp_path, monkeypatch, capsys
):
    for folder in ("workflow", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "workflow" / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOSSATLAS_MIRROR", raising=False)
    built = []
    monkeypatch.setattr(
        book.subprocess, "run", lambda *_, **__: built.append(1) or SimpleNamespace(returncode=0)
    )
    other = subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert cli.main(["book"]) == 1 and built == []
        assert "another at work in this checkout; wait" in capsys.readouterr().err
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert cli.main(["book"]) == 0 and built == [1]


@contextmanager
def _disk_that_fills_up(after: int) -> Iterator[None]:
    """What a full disk does to a write, done to each file of more than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_no_half_mask_and_is_one_line(tmp_path, monkeypatch, capsys):
    from lossatlas.basics import replacing

    with (
        _disk_that_fills_up(1000),
        pytest.raises(OSError, match="too large") as caught,
        replacing(tmp_path / "mask.png") as whole,
    ):
        whole.write_bytes(bytes(5000))
    assert caught.value.errno == errno.EFBIG and list(tmp_path.iterdir()) == []

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "masks/a.png")

    monkeypatch.setattr(cli.cli.commands["schema"], "callback", full)
    assert cli.main(["schema"]) == 1
    assert "No space left on device: 'masks/a.png'" in capsys.readouterr().err


def test_a_disk_that_fills_up_at_the_end_is_a_line_with_path_and_remedy(tmp_path, capsys):
    from lossatlas.data.errors import DataError, require_writable
    from lossatlas.experiments import TrainParameters
    from lossatlas.experiments.training import train_cell

    own, page, out = _own_folder(tmp_path / "own"), tmp_path / "advice.html", tmp_path / "out"
    page.write_text("the page before")
    Image.new("L", (96, 96)).save(tmp_path / "photo.png")
    parameters = TrainParameters(
        dataset="folder", dataset_params={"root": str(own)}, steps=1, batch_size=2, evaluations=1,
        model_params={"width": 4, "depth": 2}, runs_dir=str(tmp_path / "runs"), accelerator="cpu",
    )  # fmt: skip
    (run,) = train_cell(parameters)
    capsys.readouterr()
    for line in (
        f"advise {own} --html {page}",
        f"export {run} --format safetensors --out {out}",
        f"predict {run} {tmp_path}/photo.png --probabilities --out {out}",
    ):
        with _disk_that_fills_up(4096):
            assert cli.main(line.split()) == 1, line
        said = capsys.readouterr().err
        assert re.search(r"expected to write to \S+, but .*; .*, or name another", said), said
        assert said.count("\n") == 1
    assert (
        "the disk is full" in said and "free some space" in said
    )  # NumPy's own words would not say so
    assert page.read_text() == "the page before"
    assert [path.name for path in out.iterdir()] == ["predicted.json"]
    with _disk_that_fills_up(0), pytest.raises(DataError, match=f"write to {out}, but"):
        require_writable("masks", out, "or name another folder")


#: Root may write anywhere; without these two capabilities it meets the rights of files as everyone does.
_AS_ANYONE = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]
_COMMANDS = """
import sys
from lossatlas import cli
for line in sys.stdin.read().splitlines():
    print("$", line, file=sys.stderr)
    print("[exit", cli.main(line.split()), file=sys.stderr, end="]\\n")
"""


def _own_folder(root: Path) -> Path:
    """Twelve images with a bright rectangle, and their masks."""
    for part, (ground, thing) in {"images": (40, 200), "masks": (0, 1)}.items():
        (root / part).mkdir(parents=True)
        for number in range(12):
            canvas = np.full((32, 32), ground, np.uint8)
            canvas[8 : 12 + number, 8:20] = thing
            Image.fromarray(canvas).save(root / part / f"{number}.png")
    return root


def test_folders_that_cannot_be_written_to_are_refused_before_any_work(tmp_path):
    as_root = os.geteuid() == 0
    if as_root and not shutil.which("setpriv"):
        pytest.skip(
            "root may write anywhere, and setpriv, which takes that right away, is not installed"
        )
    closed, shut, file = (tmp_path / name for name in ("closed", "shut", "file"))
    closed.mkdir()
    shut.mkdir()
    file.touch()
    shutil.copytree("results/channels_half", closed / "channels_half")
    (closed / "channels_half" / "study.json").write_text("{}")  # so that collecting would write
    own, study = _own_folder(tmp_path / "own"), Path("studies/begin/study.yaml").resolve()
    runs, results = f"--runs-dir {tmp_path}/runs", f"--results-dir {tmp_path}/results"
    lines = [
        f"data check {own}",
        f"advise {own} --html {closed}/advice.html",
        f"compare {own} --out {closed}/compared",
        f"export nowhere.ckpt --out {closed}/exported",
        f"export nowhere.ckpt --out {shut}/deep/exported",
        f"train {study} report --runs-dir {closed}/runs",
        f"run {study} --runs-dir {closed}/runs {results}",
        f"run {study} {runs} --results-dir {closed}",
        f"collect channels_half {runs} --results-dir {closed}",
        f"evaluate {study} --runs-dir {closed}/runs",
        f"select {study} --runs-dir {closed}/runs",
        f"verdicts channels_half --results-dir {closed}",
        f"export nowhere.ckpt --out {file}/exported",
    ]
    read_only = (own / "images", own / "masks", own, closed / "channels_half", closed)
    rights = dict.fromkeys(read_only, 0o555) | {shut: 0}
    for folder, right in rights.items():
        folder.chmod(right)
    try:
        done = subprocess.run(
            [*(_AS_ANYONE if as_root else []), sys.executable, "-c", _COMMANDS],
            input="\n".join(lines), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        left = sorted(closed.iterdir())
    finally:
        for folder in rights:
            folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    checked, *refused, below_a_file = done.stderr.split("$ ")[1:]
    assert "[exit 0]" in checked, "masks that nobody may change are read like others"
    assert len(refused) == len(lines) - 2
    for said in refused:
        assert "it is not writable; make it writable, or name another" in said, said
        assert "[exit 1]" in said and "Traceback" not in said
    assert f"write to {file}, but it is a file; remove it, or name" in below_a_file
    assert left == [closed / "channels_half"] and not (tmp_path / "runs").exists(), "nothing begun"
