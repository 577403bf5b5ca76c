"""The built book for every reader: each page without a network, axe's rules, dark, search, plain files.

axe-core (MPL 2.0) comes with the package ``axe-playwright-python``; `LOSSATLAS_AXE` names another
`axe.min.js`, such as that of `npm pack axe-core`.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SERIOUS = ("serious", "critical")
#: The pages are looked at in so many tests: a busy machine needs minutes for all of them.
PARTS = 6
AXE = """
async (rules) => {
  const found = await axe.run(document, { ...rules, resultTypes: ["violations"] });
  return found.violations.map((each) => ({
    rule: each.id, impact: each.impact, nodes: each.nodes.length,
    first: each.nodes[0].html.slice(0, 150), why: each.nodes[0].failureSummary.slice(0, 300),
  }));
}
"""
#: Contrast depends on the theme and costs nine tenths of the time: it is looked at apart.
ALL_BUT_CONTRAST = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
    "rules": {"color-contrast": {"enabled": False}},
}
CONTRAST = {"runOnly": ["color-contrast"]}
#: Removes what repeats: a visible element whose classes and colours, and those of all that it is in, have
#: been seen, on this page or on one before. A page of code has thousands; the frame of all pages is the same.
#: `seen` numbers them; a key has the number of what the element is in. What no theme shows leaves, too.
WITHOUT_REPEATS = """
(seen) => {
  let count = Object.keys(seen).length;
  const repeats = (node, above) => {
    if (!node.checkVisibility()) return !node.closest(".only-dark");
    const { color, backgroundColor } = getComputedStyle(node);
    const key = `${above} ${node.localName}.${node.className} ${color} ${backgroundColor}`;
    const known = key in seen;
    if (!known) seen[key] = count++;
    const spare = [...node.children].filter((child) => repeats(child, seen[key]));
    if (known && spare.length === node.children.length) return true;
    spare.forEach((child) => child.remove());
    return false;
  };
  if (repeats(document.body, "")) document.body.replaceChildren();
  return seen;
}
"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core."""
    package = importlib.util.find_spec("axe_playwright_python")
    folders = package.submodule_search_locations if package else None
    bundled = [path for folder in folders or [] for path in Path(folder).rglob("axe.min.js")]
    path = os.environ.get("LOSSATLAS_AXE") or (str(bundled[0]) if bundled else "")
    if not Path(path).is_file():
        pytest.skip(
            "no axe-core: pip install axe-playwright-python, or LOSSATLAS_AXE=its axe.min.js"
        )
    return Path(path).read_text(encoding="utf-8")


@pytest.fixture
def dark(browser: Any) -> Iterator[Any]:
    """A reader whose system asks for dark pages."""
    context = browser.new_context(color_scheme="dark")
    yield context
    context.close()


@pytest.fixture(scope="module")
def seen() -> dict[str, int]:
    """The elements whose contrast has been looked at on a page before: see `WITHOUT_REPEATS`."""
    return {}


def violations(page: Any, axe: str, seen: dict[str, int]) -> list[str]:
    """Serious violations of an open page; of the contrast, light and then dark. The page is spent."""
    page.evaluate(axe)
    page.add_style_tag(content="* { transition: none !important }")  # no colour halfway
    found = {"any": page.evaluate(AXE, ALL_BUT_CONTRAST)}
    seen.update(page.evaluate(WITHOUT_REPEATS, seen))
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        found[theme] = page.evaluate(AXE, CONTRAST)
    return [
        f"{t}: {each}" for t, all_ in found.items() for each in all_ if each["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("part", range(PARTS))
def test_every_page_reads_without_a_network_and_for_everyone(
    built_book: Path,
    serve: Any,
    complaints: Any,
    axe: str,
    pages_of: Any,
    seen: dict[str, int],
    part: int,
) -> None:
    wrong: dict[str, list[str]] = {}
    with serve(built_book) as origin:
        for name in pages_of(built_book)[part::PARTS]:
            found = complaints(
                f"{origin}/{name}", origin=origin, also=lambda page: violations(page, axe, seen)
            )
            if found:
                wrong[name] = found
    assert not wrong


def violations_of(
    browser: Any, axe: str, html: str, seen: dict[str, int] | None = None
) -> tuple[list[str], int]:
    """Serious violations of a page that is given as text, and how many of its paragraphs were looked at."""
    page = browser.new_page()
    page.set_content(html)
    found = violations(page, axe, {} if seen is None else seen)
    left = page.locator("p:visible").count()
    page.close()
    return found, left


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_grey_on_grey_is_a_serious_violation_in_its_theme(
    browser: Any, axe: str, theme: str
) -> None:
    found, _ = violations_of(
        browser,
        axe,
        "<html lang='en'><head><title>t</title><style>body { background: white; color: black }"
        f"[data-theme={theme}] body {{ background: #777; color: #888 }}</style></head>"
        "<body><main><p>words</p></main></body></html>",
    )
    assert [each.split(":")[0] for each in found] == [theme]
    assert "color-contrast" in found[0]


@pytest.mark.parametrize(
    "last",
    [
        "<p class='a' style='background: #777; color: #888'>words</p>",
        "<div style='background: #777; color: #888'><p class='a'>words</p></div>",
        "<p class='a' id='cell'>words</p>",
        "<p class='b' hidden>words</p><p class='b'>words</p>",
    ],
)
def test_what_repeats_is_looked_at_once_unless_its_colours_are_others(
    browser: Any, axe: str, last: str
) -> None:
    found, left = violations_of(
        browser,
        axe,
        "<html lang='en'><head><title>t</title><style>#cell, .b { background: #777; color: #888 }"
        f"</style></head><body><main><p class='a'>words</p><p class='a'>words</p>{last}</main></body>",
    )
    assert [each.split(":")[0] for each in found] == ["light", "dark"]
    assert left == 2


def test_what_an_earlier_page_had_is_looked_at_once_unless_its_colours_are_others(
    browser: Any, axe: str
) -> None:
    page = (
        "<html lang='en'><head><title>t</title><style>p {{ background: #777; color: {} }}</style>"
        "</head><body><main><p>words</p></main></body></html>"
    )
    seen: dict[str, int] = {}
    first, _ = violations_of(browser, axe, page.format("#888"), seen)
    again, left = violations_of(browser, axe, page.format("#888"), seen)
    assert len(first) == 2 and again == [] and left == 0
    other, left = violations_of(browser, axe, page.format("#999"), seen)
    assert len(other) == 2 and left == 1


def test_a_missing_description_is_a_serious_violation(browser: Any, axe: str) -> None:
    found, _ = violations_of(
        browser, axe, "<html><body><img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='></body>"
    )
    assert {"any"} == {each.split(":")[0] for each in found}
    assert "image-alt" in str(found) and "html-has-lang" in str(found)


def test_a_reader_with_a_dark_setting_gets_dark_pages(
    built_book: Path, serve: Any, dark: Any
) -> None:
    with serve(built_book) as origin:
        page = dark.new_page()
        page.goto(f"{origin}/intro.html")
        theme = page.evaluate("document.documentElement.dataset.theme")
        shown = page.evaluate(
            "[...document.querySelectorAll('article img')]"
            ".filter((image) => getComputedStyle(image).display !== 'none').map((image) => image.src)"
        )
    assert theme == "dark"
    assert shown and all(name.endswith("dark.svg") for name in shown)


def test_the_search_finds_lovasz_with_its_accent(
    built_book: Path, serve: Any, browser: Any
) -> None:
    with serve(built_book) as origin:
        page = browser.new_page()
        page.goto(f"{origin}/search.html?q=Lov%C3%A1sz")
        page.wait_for_selector("#search-results li", timeout=20_000)
        found = page.locator("#search-results li a").all_text_contents()
        page.close()
    assert any("Lovász losses" in title for title in found)


def test_the_pages_open_as_plain_files(built_book: Path, browser: Any) -> None:
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(request.url))
    for name in ("intro", "generated/two_gradients", "explorer", "generated/ledger"):
        page.goto((built_book / f"{name}.html").as_uri(), wait_until="load")
        page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
        assert page.title()
    page.close()
    assert errors == []


def test_no_fold_of_code_is_empty(built_book: Path, pages_of: Any) -> None:
    """A cell whose code is folded shows an output."""
    empty = []
    for name in pages_of(built_book):
        text = (built_book / name).read_text(encoding="utf-8")
        cells = re.split(r'<div class="cell[ "]', text)[1:]
        folded = [cell for cell in cells if "tag_hide-input" in cell[:120]]
        if any('class="cell_output' not in cell for cell in folded):
            empty.append(name)
    assert empty == []
