"""The book's own extensions, each on what it is there for."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_page_is_mended_once(extension: Any) -> None:
    accessible = extension("accessible")
    page = (
        '<button class="btn search-button-field x" title="Search" aria-label="Search" data-x>'
        '<summary aria-label="Toggle hidden content"><div role="doc-biblioentry">'
        '<summary><span class="toctree-toggle"><div style="overflow-x:auto">'
    )
    mended = accessible.mend(page)
    assert mended == (
        '<button class="btn search-button-field x" title="Search" data-x>'
        '<summary><div role="listitem"><summary aria-label="Show or hide its pages">'
        '<span class="toctree-toggle"><div style="overflow-x:auto" tabindex="0">'
    )
    assert accessible.mend(mended) == mended


def page_with_command() -> dict[str, Any]:
    return {"body": '<section id="rerun-this-page"><p>studies/begin/page.ipynb</p></section>'}


def test_a_page_has_launch_links_where_the_repository_is_known(
    extension: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch = extension("launch")
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/atlas")
    context = page_with_command()
    launch.add_links(SimpleNamespace(), "generated/studies/begin", "page.html", context, None)
    links = re.findall(r'href="([^"]+)"', context["body"])
    assert links == [
        "https://mybinder.org/v2/gh/someone/atlas/main?labpath=studies%2Fbegin%2Fpage.ipynb",
        "https://colab.research.google.com/github/someone/atlas/blob/main/notebooks/colab.ipynb",
    ]
    assert (ROOT / "notebooks/colab.ipynb").is_file() and (ROOT / ".binder").is_dir()


def test_a_book_without_a_known_repository_has_no_launch_links(
    extension: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    context = page_with_command()
    extension("launch").add_links(SimpleNamespace(), "p", "page.html", context, None)
    assert context == page_with_command()


def test_the_numbers_of_the_records_reach_the_pages(extension: Any, tmp_path: Path) -> None:
    file = tmp_path / "generated" / "front" / "numbers.json"
    file.parent.mkdir(parents=True)
    file.write_text(
        json.dumps(
            {
                "begin": {"ce": {"half": "0.817"}},
                "real": {"cracks": "0.6"},
                "several": {"sum": "3.1"},
            }
        )
    )
    config = SimpleNamespace(myst_substitutions={"own": 1})
    extension("front_numbers").substitute(SimpleNamespace(confdir=str(tmp_path)), config)
    assert config.myst_substitutions == {
        "own": 1,
        "begin": {"ce": {"half": "0.817"}},
        "real": {"cracks": "0.6"},
        "several": {"sum": "3.1"},
        "coma": {"ce": {"half": "0,817"}},
        "coma_real": {"cracks": "0,6"},
        "coma_several": {"sum": "3,1"},
    }


def test_pages_that_this_build_has_not_written_are_left_alone(
    extension: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accessible, offline = extension("accessible"), extension("offline")
    text = '<summary aria-label="Toggle hidden content"><img src="https://elsewhere/x.png">'
    for name, age in (("former", 10**6), ("now", 0)):
        (tmp_path / f"{name}.html").write_text(text)
        os.utime(tmp_path / f"{name}.html", (time.time() - age,) * 2)
    app = SimpleNamespace(outdir=str(tmp_path), builder=SimpleNamespace(format="html"))
    said: list[str] = []
    warned = SimpleNamespace(warning=lambda text, *given: said.append(text % given))
    monkeypatch.setattr(offline, "logger", warned)
    offline.report_fetches(app, None)
    accessible.mend_pages(app, None)
    assert [each.split()[0] for each in said] == ["now.html"]
    assert (tmp_path / "former.html").read_text() == text
    assert (tmp_path / "now.html").read_text().startswith("<summary><img")


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<a href="https://elsewhere/">x</a><link rel="stylesheet" href="_static/a.css">', 0),
        ('<link rel="stylesheet" href="https://elsewhere/a.css">', 1),
        ("<img src = '//elsewhere/x.png'>", 1),
        ('<video poster=http://elsewhere/x.png src="here.mp4"></video>', 1),
        ('<source srcset="https://elsewhere/x.png 2x">', 1),
    ],
)
def test_what_a_browser_would_fetch_from_outside_is_found(
    extension: Any, html: str, found: int
) -> None:
    assert len(extension("offline").fetches(html)) == found
