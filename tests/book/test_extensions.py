"""The book's own extensions, each on what it is there for."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def extension(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_is_mended_once() -> None:
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    context = page_with_command()
    extension("launch").add_links(SimpleNamespace(), "p", "page.html", context, None)
    assert context == page_with_command()


def test_the_numbers_of_the_records_reach_the_pages(tmp_path: Path) -> None:
    file = tmp_path / "generated" / "front" / "numbers.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"begin": {"ce": {"half": "0.817"}}, "real": {"cracks": "0.6"}}))
    config = SimpleNamespace(myst_substitutions={"own": 1})
    extension("front_numbers").substitute(SimpleNamespace(confdir=str(tmp_path)), config)
    assert config.myst_substitutions == {
        "own": 1,
        "begin": {"ce": {"half": "0.817"}},
        "real": {"cracks": "0.6"},
        "coma": {"ce": {"half": "0,817"}},
        "coma_real": {"cracks": "0,6"},
    }
