"""Downloads against a local server that truncates, corrupts, stalls, redirects and refuses."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.server
import io
import json
import os
import stat
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from lossatlas import data
from lossatlas.data import fetch, paths
from lossatlas.data.registry import source


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    monkeypatch.setattr(fetch, "PAUSE_S", 0.0)


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` by path; ``faults[path]`` is a list of what goes wrong, one a request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path
        self.server.asked.append(path)
        faults = self.server.faults.get(path, [])
        fault = faults.pop(0) if faults else "none"
        content = self.server.files.get(path)
        if fault.isdigit():
            return self.send_error(int(fault))
        if fault == "redirect":
            self.send_response(302)
            self.send_header("Location", "/moved" + path)
            return self.end_headers()
        if content is None and path.startswith("/moved"):
            content = self.server.files.get(path.removeprefix("/moved"))
        if content is None:
            return self.send_error(404)
        if fault == "corrupt":
            content = bytes([content[0] ^ 1]) + content[1:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "truncate":
            self.wfile.write(content[: len(content) // 2])
            return self.close_connection_now()
        if fault == "stall":
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.server.released.wait(20)
            return None
        self.wfile.write(content)
        return None

    def close_connection_now(self) -> None:
        self.close_connection = True

    def log_message(self, *_) -> None:
        """Stay quiet."""


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# -- one file -----------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def one_file(server, tmp_path, monkeypatch):
    server.files["/a.bin"] = CONTENT
    folder = tmp_path / "one"
    folder.mkdir()

    def fetch_it(*faults: str, digest: str | None = sha(CONTENT)) -> Path:
        server.faults["/a.bin"] = list(faults)
        if "stall" in faults:  # a busy machine may answer late: no other server is left so soon
            monkeypatch.setattr(fetch, "TIMEOUT_S", 0.5)
        fetch.download(f"{server.address}/a.bin", folder / "a.bin", digest)
        return folder / "a.bin"

    return fetch_it


@pytest.mark.parametrize("fault", ["none", "truncate", "corrupt", "stall", "500", "redirect"])
def test_a_download_recovers_from_one_fault(one_file, fault):
    path = one_file(fault)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("truncate", "the connection broke before the end"),
        ("corrupt", "the checksum is not"),
        ("stall", r"no byte came for 0\.5 s"),
        ("500", "the server answered 500"),
    ],
)
def test_a_fault_that_stays_is_one_clear_line_and_leaves_nothing(one_file, tmp_path, fault, reason):
    start = time.monotonic()
    with pytest.raises(data.DataError, match=reason) as caught:
        one_file(fault, fault, fault)
    assert time.monotonic() - start < 10, "a stalled server holds the program"
    assert "LOSSATLAS_MIRROR" in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "one").iterdir())


def test_a_missing_file_is_not_asked_for_twice(one_file, server):
    with pytest.raises(data.DataError, match="the server answered 404"):
        one_file("404")
    assert server.asked == ["/a.bin"]


def test_no_server_at_all_is_one_clear_line(tmp_path, server):
    closed = Server()
    address = closed.address
    closed.server_close()
    with pytest.raises(data.DataError, match="no connection"):
        fetch.download(f"{address}/a.bin", tmp_path / "a.bin", None)


def test_a_truncated_download_without_a_checksum_is_noticed_by_its_length(one_file):
    with pytest.raises(data.DataError, match="broke before the end"):
        one_file("truncate", "truncate", digest=None)


def test_a_full_disk_is_named_before_and_during_the_download(one_file, tmp_path, monkeypatch):
    with pytest.raises(data.DataError, match=r"expected 1000000000 MB free in .*free some space"):
        fetch.check_space(tmp_path / "not" / "yet", 10**15)
    import pooch

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pooch, "retrieve", full)
    with pytest.raises(data.DataError, match="the disk is full"):
        one_file()


# -- unpacking ----------------------------------------------------------------------------------


def zipped(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for name, to in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, to)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, to in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, to
            archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_only_the_wanted_files_are_unpacked(tmp_path, pack):
    (tmp_path / "a").write_bytes(pack({"top/in/x.txt": b"x", "top/out/y.txt": b"y", "z": b"z"}))
    out = tmp_path / "out"
    names = fetch.unpack(tmp_path / "a", out, strip="top/", keep=("in/",), limit=100)
    assert names == ["in/x.txt"] and (out / "in" / "x.txt").read_bytes() == b"x"
    assert [p.name for p in out.iterdir()] == ["in"]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("evil", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "C:/evil"])
def test_a_member_that_leaves_the_folder_stops_before_the_first_byte(tmp_path, pack, evil):
    (tmp_path / "a").write_bytes(pack({"good.txt": b"x", evil: b"evil"}))
    with pytest.raises(data.DataError, match="nothing was unpacked"):
        fetch.unpack(tmp_path / "a", tmp_path / "out", limit=100)
    assert [p.name for p in tmp_path.rglob("*")] == ["a"]


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_link_in_an_archive_is_refused(tmp_path, pack):
    (tmp_path / "a").write_bytes(pack({"x": b"x"}, {"link": "/etc"}))
    with pytest.raises(data.DataError, match="link or device 'link'"):
        fetch.unpack(tmp_path / "a", tmp_path / "out", limit=100)
    assert not (tmp_path / "out").exists()


def test_an_archive_that_swells_or_is_damaged_or_is_none_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(zipped({"big": bytes(10_000)}))
    with pytest.raises(data.DataError, match="expected at most"):
        fetch.unpack(path, tmp_path / "out", limit=5_000)
    whole = zipped({"x": os.urandom(500)})
    squeezed = zipped({"x": b"x y" * 5000})
    method = squeezed.index(b"PK\1\2") + 10  # in the list of members
    tar = gzip.compress(gzip.decompress(tarred({"x": b"x"}))[:1024])  # one file and no end
    for damaged in (
        whole[:40] + b"\0" * 40 + whole[80:],
        squeezed[:31] + b"\7" + squeezed[32:],  # no deflated stream
        squeezed[:method] + b"\x63" + squeezed[method + 1 :],  # nor any compression that is known
        tar[:-8] + bytes(8),  # whose checksum is another
        b"<html>not found</html>",
    ):
        path.write_bytes(damaged)
        with pytest.raises(data.DataError, match="expected a whole zip or tar archive"):
            fetch.unpack(path, tmp_path / "other", limit=50_000)


# -- a data set ---------------------------------------------------------------------------------


@pytest.fixture
def toy_source(server, tmp_path, monkeypatch, draw_camvid):
    """CamVid as a tiny archive on the local server, with a registry that knows it."""
    drawn = draw_camvid(tmp_path / "drawn")
    files = {
        p.relative_to(drawn).as_posix(): p.read_bytes() for p in drawn.rglob("*") if p.is_file()
    }
    registry = tmp_path / "registry"
    registry.mkdir()
    (registry / "camvid.sha256").write_text(
        "".join(f"{sha(content)}  {name}\n" for name, content in files.items())
    )
    monkeypatch.setattr(paths, "registry_dir", lambda: registry)

    def serve(members=None, digest: str | None = None, **entry) -> None:
        archive = zipped({f"repo/{n}": c for n, c in (members or files).items()} | {"repo/z": b""})
        server.files["/set.zip"] = archive
        facts = {"url": f"{server.address}/set.zip", "sha256": digest, "bytes": 10**5}
        facts |= {"unpacked_bytes": 10**6, "strip": "repo/", "keep": ["CamVid/"], **entry}
        (registry / "sources.json").write_text(json.dumps({"camvid": facts}))

    serve()
    serve.files, serve.server = files, server
    return serve


def nothing_left() -> bool:
    raw = paths.raw_dir()
    return not raw.exists() or {p.name for p in raw.iterdir()} <= {".camvid.lock"}


def test_a_set_is_fetched_verified_unpacked_and_loaded_and_its_licence_shown_once(
    toy_source, capsys
):
    base = fetch.get(source("camvid"))
    assert base == paths.raw_dir() / "camvid" / "CamVid"
    said = capsys.readouterr().err
    assert "non-commercial" in said and "Please cite" in said
    train = data.load("camvid", "train")  # with verification
    assert len(train) == 3
    assert not (paths.raw_dir() / "camvid" / "z").exists()
    fetch.get(source("camvid"))
    assert len(toy_source.server.asked) == 1, "fetched although at hand"
    fetch.get(source("camvid"), force=True)
    assert len(toy_source.server.asked) == 2
    assert "licence" not in capsys.readouterr().err


def test_the_first_use_fetches_the_set_unless_forbidden(toy_source, monkeypatch, capsys):
    with pytest.raises(data.DataError, match="run `lossatlas data get camvid`"):
        data.load("camvid", "train")
    assert toy_source.server.asked == []
    monkeypatch.setenv("LOSSATLAS_DOWNLOAD", "1")
    assert len(data.load("camvid", "val")) == 2
    assert "licence" in capsys.readouterr().err


def test_a_set_without_an_address_says_where_it_belongs(toy_source):
    with pytest.raises(
        data.DataError, match=r"crackforest: expected its address in .*sources\.json"
    ):
        fetch.get(source("crackforest"))
    assert toy_source.server.asked == [] and nothing_left()


def test_a_first_use_that_cannot_fetch_names_the_set_and_what_went_wrong(toy_source, monkeypatch):
    monkeypatch.setenv("LOSSATLAS_DOWNLOAD", "1")
    del toy_source.server.files["/set.zip"]
    with pytest.raises(data.DataError, match=r"camvid: not at hand, and .*answered 404"):
        data.load("camvid", "train")


def test_an_archive_with_other_files_than_the_registry_leaves_nothing(toy_source):
    changed = dict(toy_source.files)
    changed["CamVid/train.txt"] += b"\n"
    toy_source(changed)
    with pytest.raises(data.DataError, match=r"1 with another checksum \(CamVid/train.txt\)"):
        fetch.get(source("camvid"))
    del changed["CamVid/train.txt"]
    toy_source(changed)
    with pytest.raises(data.DataError, match=r"1 missing \(CamVid/train.txt\)"):
        fetch.get(source("camvid"))
    toy_source({"other/x": b"x"})
    with pytest.raises(data.DataError, match="expected files under repo/"):
        fetch.get(source("camvid"))
    assert nothing_left()


def test_an_archive_checksum_counts_where_the_registry_has_one(toy_source):
    toy_source(digest="0" * 64)
    with pytest.raises(data.DataError, match="the checksum is not 000000000000…"):
        fetch.get(source("camvid"))
    assert nothing_left()
    # A verified archive vouches for files that the registry does not know.
    members = dict(toy_source.files)
    extra = members["CamVid/train.txt"] + b"\n"
    members["CamVid/train.txt"] = extra
    toy_source(members)
    toy_source(members, digest=sha(toy_source.server.files["/set.zip"]))
    fetch.get(source("camvid"))
    assert len(data.load("camvid", "train")) == 3
    path = paths.raw_dir() / "camvid" / "CamVid" / "train.txt"
    path.write_bytes(extra + b"\n")
    with pytest.raises(data.DataError, match="wrong checksum"):
        data.load("camvid", "train")


def test_a_download_that_fails_keeps_what_was_there(toy_source):
    fetch.get(source("camvid"))
    before = sorted(p.name for p in (paths.raw_dir() / "camvid").rglob("*"))
    toy_source.server.faults["/set.zip"] = ["truncate"] * 5
    with pytest.raises(data.DataError, match="broke before the end"):
        fetch.get(source("camvid"), force=True)
    assert sorted(p.name for p in (paths.raw_dir() / "camvid").rglob("*")) == before


def test_two_at_once_fetch_once(toy_source):
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch.get(source("camvid")))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(set(found)) == 1
    assert toy_source.server.asked == ["/set.zip"]


def test_a_mirror_may_be_an_address(toy_source, monkeypatch):
    server = toy_source.server
    names = {**toy_source.files, "notes/ünï code.txt": b"hello"}
    for name, content in names.items():
        from urllib.parse import quote

        server.files[f"/mirror/camvid/{quote(name)}"] = content
    sums = "".join(f"{sha(c)}  {n}\n" for n, c in names.items()).encode()
    server.files["/mirror/camvid/SHA256SUMS"] = sums
    monkeypatch.setenv("LOSSATLAS_MIRROR", f"{server.address}/mirror/")
    server.faults["/mirror/camvid/CamVid/train.txt"] = ["corrupt"]
    fetch.get(source("camvid"))
    assert len(data.load("camvid", "test")) == 2
    note = paths.raw_dir() / "camvid" / "notes" / "ünï code.txt"
    assert note.read_bytes() == b"hello"
    server.files["/mirror/camvid/SHA256SUMS"] = f"{'0' * 64}  ../evil\n".encode()
    with pytest.raises(data.DataError, match="nothing was unpacked"):
        fetch.get(source("camvid"), force=True)


def test_a_folder_that_cannot_be_written_is_one_clear_line(toy_source, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(data.DataError, match=r"expected to write to .*LOSSATLAS_DATA"):
        fetch.get(source("camvid"))


def test_the_committed_registry_has_an_address_for_every_registered_set():
    archives = fetch.archives()
    for name in ("camvid", "chase_db1", "crackforest", "kolektorsdd", "vnc_sstem"):
        assert archives[name].url.startswith("https://")
        assert archives[name].sha256 is None or len(archives[name].sha256) == 64
