"""Launch links on executed pages: Binder and Colab, where the book knows its repository.

``GITHUB_REPOSITORY`` ("owner/name", which GitHub Actions sets) names it. A book that is built elsewhere
has no links, and gives the command alone.
"""

from __future__ import annotations

import os
import re
from typing import Any

from sphinx.application import Sphinx

_NOTEBOOK = re.compile(r"\b(?:notebooks|studies)/[\w/]+\.ipynb")
_SECTION = 'id="rerun-this-page"'


def links(repository: str, notebook: str) -> str:
    """A paragraph with the two links.

    Binder opens the notebook itself. Colab has no checkout, so it opens the notebook that makes one.
    """
    path = notebook.replace("/", "%2F")
    binder = f"https://mybinder.org/v2/gh/{repository}/main?labpath={path}"
    colab = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/colab.ipynb"
    return (
        f'<p class="launch">Without an installation: <a href="{binder}">{notebook} on Binder</a>, or '
        f'<a href="{colab}">any notebook of the book on Colab</a>.</p>'
    )


def add_links(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Put the links at the end of the section that gives the page's command."""
    repository = os.environ.get("GITHUB_REPOSITORY", "")
    before, section, after = str(context.get("body", "")).partition(_SECTION)
    found = _NOTEBOOK.search(after)
    if repository and section and found:
        context["body"] = (
            before
            + section
            + after.replace("</section>", links(repository, found[0]) + "</section>", 1)
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects to Sphinx's event for a page that is about to be written."""
    app.connect("html-page-context", add_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
