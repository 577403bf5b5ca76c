"""Faults of machines: a build that is killed, two at once, a disk that is full."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

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


def test_a_disk_that_fills_up_leaves_no_half_mask_and_is_one_line(tmp_path, monkeypatch, capsys):
    from lossatlas.deploy import predict

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # what a full disk does to a write
    try:
        with pytest.raises(OSError, match="too large") as caught:
            predict._write(tmp_path / "mask.png", lambda file: file.write(bytes(5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG and list(tmp_path.iterdir()) == []

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "masks/a.png")

    monkeypatch.setattr(cli.cli.commands["schema"], "callback", full)
    assert cli.main(["schema"]) == 1
    assert "No space left on device: 'masks/a.png'" in capsys.readouterr().err
