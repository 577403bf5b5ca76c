"""The threshold on stored logits: what the page shows is what NumPy counts, from a file, by keyboard, on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lossatlas.report import look

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "book" / "_static" / "pages" / "look.js"
STYLE = ROOT / "book" / "_static" / "book.css"
LOGITS = ROOT / "results" / "look" / "begin.npz"


REAL = ROOT / "results" / "look" / "thresholds.npz"
RNG = np.random.default_rng(0)


def photographs(group: dict[str, Any]) -> tuple[str, np.ndarray, np.ndarray, list[str]]:
    """A set of the size that a group asks for: noise, a tenth foreground, a stripe without labels."""
    count = max(group["places"]) + 1
    height, width = (max(c[k] for c in group["corners"]) + group["side"] for k in (0, 1))
    ids = ["another"] * count
    for place, name in zip(group["places"], group["ids"], strict=True):
        ids[place] = name
    targets = (RNG.random((count, height, width)) < 0.1).astype(np.uint8)
    targets[:, :, ::7] = look.VOID
    return "Noise", RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8), targets, ids


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What `photographs` gave, by group."""
    return {}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, seen: dict[str, Any]) -> Path:
    """The page's own HTML in a plain file."""

    def read(group: dict[str, Any]) -> Any:
        return seen.setdefault(group["name"], photographs(group))

    html = look.embed([LOGITS, REAL], read)
    html = html.removeprefix("```{raw} html\n").removesuffix("```\n")
    path = tmp_path_factory.mktemp("look") / "look.html"
    path.write_text(
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Look</title>"
        f"<meta name='viewport' content='width=device-width'><style>{STYLE.read_text()}</style></head>"
        f"<body><article>{html}</article><script>{SCRIPT.read_text()}</script></body></html>",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    opened = browser.new_page()
    opened.on("pageerror", lambda error: pytest.fail(str(error)))
    opened.goto(file.as_uri())
    opened.wait_for_selector("#look-threshold")
    yield opened
    opened.close()


def counted(loss: str, steps: int) -> list[str]:
    """Dice, precision and recall over the first group's six images, as the page prints them."""
    with np.load(LOGITS) as saved:
        about = json.loads(str(saved["about"]))
        name = about["groups"][0]["name"]
        mask = saved[f"{name}/{loss}"].astype(int) >= steps + about["zero"]
        truth = saved[f"{name}/targets"] == 1
    hit, predicted, true = (mask & truth).sum(), mask.sum(), truth.sum()
    precision = f"{hit / predicted:.3f}" if predicted else "–"
    return [f"{2 * hit / (predicted + true):.3f}", precision, f"{hit / true:.3f}"]


def shown(page: Any, row: str) -> list[str]:
    return page.locator(f"#look tr:has(th:text-is('{row}')) td").all_text_contents()


@pytest.mark.parametrize("steps", [0, -15, 40])
def test_the_scores_are_those_that_numpy_counts(page: Any, steps: int) -> None:
    page.eval_on_selector(
        "#look-threshold",
        f"(node) => {{ node.value = {steps}; node.dispatchEvent(new Event('input')); }}",
    )
    for loss in ("ce", "dice"):
        assert shown(page, f"{loss}, all 6 images") == counted(loss, steps)


def test_cross_entropy_finds_nothing_at_one_half_and_its_own_threshold_brings_it_back(
    page: Any,
) -> None:
    assert shown(page, "ce, all 6 images")[0] == "0.000"
    page.get_by_role("button", name="left's own threshold").click()
    assert float(shown(page, "ce, all 6 images")[0]) > 0.5


def test_the_threshold_moves_by_the_keyboard_and_says_its_value(page: Any) -> None:
    before = page.get_attribute("#look-threshold", "aria-valuetext")
    page.focus("#look-threshold")
    page.keyboard.press("ArrowRight")
    after = page.get_attribute("#look-threshold", "aria-valuetext")
    assert before == "probability 0.500" and after == "probability 0.525"
    assert "missed" in page.get_attribute("#look-canvas-left", "aria-label")


def test_the_mask_follows_the_threshold(page: Any) -> None:
    drawn = "(node) => node.toDataURL()"
    before = page.eval_on_selector("#look-canvas-right", drawn)
    page.eval_on_selector(
        "#look-threshold", "(node) => { node.value = 120; node.dispatchEvent(new Event('input')); }"
    )
    assert page.eval_on_selector("#look-canvas-right", drawn) != before


def test_another_group_has_its_own_runs(page: Any) -> None:
    before = page.locator(".look-runs").text_content()
    page.select_option("#look-group", "1")
    assert page.locator(".look-runs").text_content() != before
    assert page.locator("#look-image option").count() == 6


def test_real_images_are_read_by_whoever_builds_the_page_and_void_counts_nowhere(
    page: Any, seen: dict[str, Any]
) -> None:
    with np.load(REAL) as saved:
        group = json.loads(str(saved["about"]))["groups"][0]
        logits = saved[f"{group['name']}/ce"].astype(int)
        assert not any("images" in key or "targets" in key for key in saved.files)
    page.select_option(
        "#look-group", label=page.locator("#look-group option").all_text_contents()[3]
    )
    page.select_option("#look-image", "1")
    side, (y, x) = group["side"], group["corners"][1]
    truth = seen[group["name"]][2][group["places"][1], y : y + side, x : x + side]
    mask, true = (logits[1] >= 128) & (truth != look.VOID), truth == 1
    hit = (mask & true).sum()
    expected = [2 * hit / (mask.sum() + true.sum()), hit / mask.sum(), hit / true.sum()]
    assert shown(page, "ce, this image") == [f"{value:.3f}" for value in expected]
    assert page.locator("#look-left option").all_text_contents() == group["losses"]


def test_a_threshold_beyond_the_logits_that_were_kept_is_not_offered(page: Any) -> None:
    right = page.get_by_role("button", name="right's own threshold")
    assert right.is_enabled()
    page.select_option(
        "#look-group", "2"
    )  # Dice's own threshold there is a logit of 30, the digits' logits end at 12.7
    assert right.is_disabled() and "beyond" in right.get_attribute("title")


def test_another_set_of_that_name_is_refused() -> None:
    def renamed(group: dict[str, Any]) -> Any:
        *rest, ids = photographs(group)
        return *rest, [name + "x" for name in ids]

    with pytest.raises(ValueError, match="data set is another one"):
        look.pictures([REAL], renamed)


def test_a_set_that_is_not_at_hand_is_named_with_its_command() -> None:
    page = look.embed([LOGITS, REAL], lambda group: None)
    assert "Not shown here: cracks" in page and "lossatlas data get crackforest" in page
    assert "crackforest" not in page.split("</script>")[0]


def test_it_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 900})
    wide = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"
    assert page.evaluate(wide) <= 1


def test_the_data_stay_below_a_megabyte(file: Path) -> None:
    assert LOGITS.stat().st_size < 2**20 and file.stat().st_size < 1.25 * 2**20


def test_a_checkout_without_logits_says_the_command(tmp_path: Path) -> None:
    assert "python benchmarks/look.py" in look.embed([tmp_path / "look.npz"], photographs)
