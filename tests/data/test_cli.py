"""``lossatlas data``: what it prints and its exit status."""

from __future__ import annotations

import json
import shutil

import pytest

from lossatlas import data
from lossatlas.data import cli, paths


@pytest.fixture
def run():
    """Run ``lossatlas data ARGUMENTS`` and return the exit status."""

    def call(*arguments: str) -> int:
        return cli.data.main(list(arguments), standalone_mode=False) or 0

    return call


def test_list_names_every_set_and_whether_it_is_at_hand(run, capsys):
    assert run("list") == 0
    text = capsys.readouterr().out
    for name in data.names():
        assert name in text
    assert "built in" in text and "not here" in text
    assert run("list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["digits"]["available"] and not rows["camvid"]["available"]
    assert rows["camvid"]["void"] == 11 and rows["camvid"]["fetchable"]
    assert not rows["folder"]["fetchable"]


def test_path_prints_the_folder_or_says_how_to_get_it(run, capsys, mirror):
    assert run("path", "camvid") == 0
    assert capsys.readouterr().out.strip() == str(mirror / "camvid" / "CamVid")
    with pytest.raises(data.DataError, match="needs no file"):
        run("path", "digits")
    with pytest.raises(data.DataError, match="did you mean camvid"):
        run("path", "camvod")


def test_get_of_a_set_at_hand_fetches_nothing(run, capsys, mirror):
    assert run("get", "vnc_sstem") == 0
    assert "at hand" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["camvid", "chase_db1", "crackforest", "kolektorsdd", "vnc_sstem"])
def test_verify_finds_the_mirror_right(run, capsys, mirror, name):
    assert run("verify", name) == 0
    assert "every checksum is right" in capsys.readouterr().out


def test_path_verify_and_get_have_json_or_a_dry_run(run, capsys, mirror):
    assert run("path", "vnc_sstem", "--json") == 0
    assert json.loads(capsys.readouterr().out)["path"].startswith(str(mirror / "vnc_sstem"))
    assert run("verify", "vnc_sstem", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"vnc_sstem": []}
    assert run("get", "vnc_sstem", "--dry-run") == 0
    assert "at hand in" in capsys.readouterr().out
    assert run("get", "vnc_sstem", "--dry-run", "--force") == 0
    assert "vnc_sstem: fetch " in capsys.readouterr().out


def test_verify_lists_everything_that_is_wrong_at_once(run, capsys, mirror):
    copy = paths.raw_dir() / "vnc_sstem"
    shutil.copytree(mirror / "vnc_sstem" / "stack1", copy / "stack1")
    (copy / "stack1" / "raw" / "03.png").unlink()
    for name in ("labels00000005.png", "labels00000016.png"):
        path = copy / "stack1" / "labels" / name
        path.write_bytes(path.read_bytes() + b"\0")
    assert run("verify", "vnc_sstem") == 1
    text = capsys.readouterr().out
    assert text.count("wrong checksum") == 2 and "labels00000016.png" in text
    assert "missing" in text and "03." in text


def test_verify_of_a_set_that_is_not_here_says_how_to_get_it(run):
    with pytest.raises(data.DataError, match="data get camvid"):
        run("verify", "camvid")
