"""The advice as a whole: what it says of near and far data, as text, JSON and a page."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from pictures import save
from PIL import Image

from lossatlas import data
from lossatlas.advise import advise, facts
from lossatlas.advise.advice import describe, prior_bias
from lossatlas.advise.page import write_page
from lossatlas.cli import main
from lossatlas.data import DataError

DIGITS = {
    "task": "binary", "image_size": 64, "objects": None, "object_size": 16, "distractors": 2,
    "train_size": 12, "val_size": 2, "test_size": 2, "foreground": 0.03,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A folder of masks as the study's are."""
    root = tmp_path_factory.mktemp("digits")
    labels = data.load_labels("digits", "train", **DIGITS).labels
    save(root / "masks", {str(index): label for index, label in enumerate(labels)})
    return root


@pytest.fixture
def discs(tmp_path):
    """Large round objects, as no study has, and an empty mask."""
    y, x = np.mgrid[:80, :80]
    disc = (y - 40) ** 2 + (x - 40) ** 2 < 900
    save(tmp_path / "masks", {"a": disc, "b": disc, "empty": 0 * disc})
    return tmp_path


def test_masks_like_those_of_a_study_get_its_rows_with_interval_and_n(digits):
    advice = advise(digits)
    assert advice["nearest"]["id"] == "begin_3" and advice["nearest"]["near"]
    first = advice["decisions"]["loss"][0]
    assert first["status"] == "studied"
    text = describe(advice)
    for item in first["evidence"]:
        low, high = item["interval"]
        assert f"{item['effect']:+.3f} [{low:+.3f}, {high:+.3f}], n = {item['n']}" in text


def test_masks_unlike_every_study_are_told_so_and_get_no_number_of_a_study(discs):
    advice = advise(discs)
    rows = [row for rows in advice["decisions"].values() for row in rows]
    assert not advice["nearest"]["near"]
    assert "nothing studied here is like your data" in describe(advice)
    assert all(row["status"] != "studied" for row in rows)
    assert any("empty image has no Dice" in row["do"] for row in rows)


def test_the_need_for_probabilities_changes_the_advice(digits):
    mask, chance = advise(digits), advise(digits, need="probability")
    assert mask["decisions"]["loss"] != chance["decisions"]["loss"]
    assert chance["decisions"]["loss"][0]["do"].startswith("ce")
    assert "none" in chance["decisions"]["threshold"][0]["do"]
    with pytest.raises(DataError, match="expected one of mask, probability, boundary"):
        advise(digits, need="speed")


def test_the_prior_bias_is_that_of_the_best_constant_prediction():
    import torch

    one = {"foreground": [{"name": "thing", "fraction": 0.01}]}
    assert prior_bias(one) == {"thing": pytest.approx(math.log(0.01 / 0.99))}
    three = [{"name": "a", "fraction": 0.2}, {"name": "b", "fraction": 0.1}]
    found = torch.tensor(list(prior_bias({"foreground": three}).values()))
    assert found.softmax(0).tolist() == pytest.approx([0.7, 0.2, 0.1])


def test_noisy_annotators_are_reported_and_lead_to_their_own_rows(discs):
    mask = np.asarray(Image.open(discs / "masks" / "a.png"))
    second = save(discs / "second", {"a": np.roll(mask, 25, axis=1)})
    advice = advise(discs, also=[second])
    (agreed,) = advice["facts"]["annotators"]
    assert agreed["dice"]["class_1"] < 0.8
    assert any("annotators" in row["do"] for row in advice["decisions"]["metrics"])


class _Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.text = set(), [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href", "onerror", "onload")]

    def handle_data(self, data):
        self.text += data


def test_names_from_the_data_are_text_on_the_page_and_no_markup(discs, tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    (discs / "classes.yaml").write_text(json.dumps({"classes": ["background", evil]}))
    (discs / "masks" / "a.png").rename(discs / "masks" / "<b onload=x>&amp;.png")
    page = write_page(tmp_path / "advice.html", advise(discs), facts.read_masks(discs))
    seen = _Seen()
    seen.feed(page.read_text(encoding="utf-8"))
    assert evil in seen.text and "<b onload=x>&amp;" in seen.text
    assert not {"script", "b"} & seen.tags
    assert len(seen.sources) == 3  # the pictures of the three masks, and nothing from elsewhere
    assert all(source.startswith("data:image/png;base64,") for source in seen.sources)


def test_the_command_prints_text_json_and_a_page(discs, tmp_path, capsys):
    page = tmp_path / "advice.html"
    assert main(["advise", str(discs), "--html", str(page)]) == 0
    assert "nothing studied here" in capsys.readouterr().out
    assert page.is_file()
    assert main(["advise", str(discs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["masks"] == 3


def test_an_object_that_fills_its_mask_can_be_advised_on(tmp_path, capsys):
    save(tmp_path / "masks", {"a": np.ones((8, 8))})
    assert main(["advise", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nearest"]["factor"] is None
