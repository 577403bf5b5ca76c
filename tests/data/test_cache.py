"""The cache of decoded arrays: whole or absent, whoever writes, whoever is killed."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lossatlas import data
from lossatlas.data import cache, integrity, paths
from lossatlas.data.errors import DataError

SHAPE = (6, 8, 8)


def fill(images, labels):
    images[:] = 7
    labels[:] = 3


def arrays_dir() -> Path:
    return paths.cache_dir() / "arrays"


def make(key="k", filler=fill):
    return cache.make(key, (*SHAPE, 3), SHAPE, filler, {"what": "a test"})


def test_an_entry_is_two_maps_and_a_checksum_and_is_found_again():
    entry = make()
    assert isinstance(entry.images, np.memmap) and not entry.images.flags.writeable
    assert (entry.images == 7).all() and (entry.labels == 3).all()
    assert entry.checksum == cache.content_checksum(np.array(entry.images), np.array(entry.labels))
    again = cache.find("k")
    assert again is not None and again.checksum == entry.checksum
    assert cache.find("other") is None
    assert [p.name for p in arrays_dir().iterdir()] == ["k"]


def test_whatever_fails_while_filling_leaves_nothing():
    def broken(images, labels):
        images[0] = 1
        raise DataError("half-way")

    with pytest.raises(DataError, match="half-way"):
        make(filler=broken)
    assert not list(arrays_dir().iterdir())


def _race(folder: str, barrier, results) -> None:
    os.environ["LOSSATLAS_CACHE"] = folder

    def slow(images, labels):
        barrier.wait(60)  # all are in the midst of it at once
        fill(images, labels)

    entry = cache.find("k") or make(filler=slow)
    results.put((entry.checksum, int(entry.images.sum())))


def test_several_processes_may_make_the_same_entry_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    folder = str(tmp_path / "cache")
    workers = [context.Process(target=_race, args=(folder, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert found == {(found.copy().pop()[0], 7 * 6 * 8 * 8 * 3)}
    assert [p.name for p in arrays_dir().iterdir()] == ["k"]


def _die(folder: str, ready) -> None:
    os.environ["LOSSATLAS_CACHE"] = folder

    def endless(images, labels):
        images[:3] = 7
        ready.set()
        time.sleep(60)

    make(filler=endless)


def test_a_killed_process_leaves_no_entry_and_its_rest_is_swept_up_later(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=_die, args=(str(tmp_path / "cache"), ready))
    worker.start()
    assert ready.wait(60)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(30)
    assert cache.find("k") is None
    (rest,) = arrays_dir().iterdir()
    assert rest.name.startswith(".making-")
    assert (make().images == 7).all()
    assert rest.exists(), "another process may still be at it"
    old = time.time() - cache.STALE_AFTER_S - 60
    os.utime(rest, (old, old))
    make("another")
    assert not rest.exists()


@pytest.mark.parametrize("damage", ["images.npy", "labels.npy", "meta.json", "[]"])
def test_a_damaged_entry_is_made_anew(damage):
    entry = make()
    if damage == "[]":
        (entry.folder / "meta.json").write_text(damage)
    else:
        path = entry.folder / damage
        path.write_bytes(path.read_bytes()[:20])
    assert cache.find("k") is None
    assert not entry.folder.exists()


def test_a_pickle_in_the_cache_is_never_loaded():
    entry = make()
    np.save(entry.folder / "images.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    assert cache.find("k") is None


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"the disk is full; .*LOSSATLAS_CACHE.*cache=False"):
        make()
    assert not list(arrays_dir().iterdir())


def test_a_folder_that_cannot_be_written_is_one_clear_line(monkeypatch, tmp_path, draw_camvid):
    root = str(draw_camvid(tmp_path / "set"))

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache.tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(cache.tempfile, "mkstemp", refuse)
    with pytest.raises(DataError, match=r"not writable; .*LOSSATLAS_CACHE"):
        data.load("camvid", "train", root=root, verify=False)
    train = data.load("camvid", "train", root=root, verify=False, cache=False)
    assert len(train) == 3  # and the hashes are simply not remembered


def test_a_cache_path_that_is_a_file_is_one_clear_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("LOSSATLAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="expected to write to"):
        make()


def test_the_key_depends_on_everything_it_describes():
    keys = {cache.cache_key({"a": a, "files": f}) for a in (1, 2) for f in ([], ["x"])}
    assert len(keys) == 4
    assert cache.cache_key({"b": 1, "a": 2}) == cache.cache_key({"a": 2, "b": 1})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reading_batches_of_a_large_entry_keeps_memory_bounded(tmp_path):
    # 256 MB of images; a process that maps them and reads batches must not hold them all.
    count = 256

    def large(images, labels):
        for start in range(0, count, 16):
            images[start : start + 16] = start % 251

    entry = cache.make("big", (count, 1024, 1024, 1), (count, 4, 4), large, {})
    before = _anonymous_kb()
    total = sum(int(entry.images[i : i + 8].max()) for i in range(0, count, 8))
    assert total > 0
    assert _anonymous_kb() - before < 100_000


@pytest.mark.parametrize("replaced", [True, False])
def test_another_file_of_the_same_name_size_and_time_is_hashed_anew(tmp_path, replaced):
    file = tmp_path / "a.npy"
    found = []
    for body in (b"old", b"new"):
        time.sleep(0.02)  # file systems stamp changes by the tick of the kernel's clock
        if replaced:
            file.unlink(missing_ok=True)
        file.write_bytes(body)
        os.utime(file, (1e9, 1e9))
        found.append(integrity.digests("x", tmp_path, ["a.npy"])["a.npy"])
    assert found == [hashlib.sha256(body).hexdigest() for body in (b"old", b"new")]


def _anonymous_kb() -> int:
    """Memory of this process that is not backed by a file, which the system cannot drop."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    raise AssertionError("expected the field RssAnon in /proc/self/status, got none")


def test_meta_says_what_the_entry_holds():
    entry = make()
    meta = json.loads((entry.folder / "meta.json").read_text())
    assert meta["description"] == {"what": "a test"} and meta["shapes"] == [[6, 8, 8, 3], [6, 8, 8]]
