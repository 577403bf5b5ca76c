"""Mends what the theme and docutils write against WCAG, on every page when the build ends.

Each replacement names its rule of axe. A second build changes nothing more.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psutil
from sphinx.application import Sphinx

#: (pattern, replacement): what is written, and what a screen reader needs instead.
MENDED = (
    # label-content-name-mismatch: the visible text "Search Ctrl+K" is the button's name
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    # label-content-name-mismatch: the icons' titles are text beside the name "Color mode"
    (r'(<i class="theme-switch [^>]*?)\s+title="[^"]*"', r'\1 aria-hidden="true"'),
    # label-content-name-mismatch: a fold is named by its visible text
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # summary-name: the arrow that opens a part of the contents
    (
        r'<summary>(<span class="toctree-toggle")',
        r'<summary aria-label="Show or hide its pages">\1',
    ),
    # scrollable-region-focusable: a wide table scrolls by the keyboard too
    (r'<div style="overflow-x:auto">', '<div style="overflow-x:auto" tabindex="0">'),
    # aria-required-children: an entry of the bibliography is an item of its list
    (r'role="doc-biblioentry"', 'role="listitem"'),
)


#: Pages in another language than the book's, which a screen reader must pronounce.
LANGUAGES = ("es", "fr", "zh")


def name_language(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give a translated page its own language."""
    if pagename in LANGUAGES:
        context["language"] = pagename


def mend(html: str) -> str:
    """The page with every replacement of `MENDED` made."""
    for pattern, replacement in MENDED:
        html = re.sub(pattern, replacement, html)
    return html


def mend_pages(app: Sphinx, exception: Exception | None) -> None:
    """Mends the pages that this build has written; the others were mended when they were."""
    if exception is not None or app.builder.format != "html":
        return
    started = psutil.Process().create_time()
    for page in Path(app.outdir).rglob("*.html"):
        if page.stat().st_mtime < started:
            continue
        before = page.read_text(encoding="utf-8")
        after = mend(before)
        if after != before:
            page.write_text(after, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects to Sphinx's events for a page and for a build that has ended."""
    app.connect("html-page-context", name_language)
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
