"""Describes pictures that nobody has described.

A figure printed by a notebook has no alternative text unless its cell's metadata names one
(``mystnb: {image: {alt: …}}``). For the others the section's title says what the figure is about,
which is what a reader who cannot see it needs in order to find the words beside it.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx


def describe(app: Sphinx, doctree: nodes.document) -> None:
    """Gives every picture without an alternative text one from its section's title."""
    for image in doctree.findall(nodes.image):
        if (image.get("alt") or "").strip():
            continue
        section = image.parent
        while section is not None and not isinstance(section, nodes.section):
            section = section.parent
        title = section[0].astext() if section is not None else "this page"
        image["alt"] = f"Figure in the section “{title}”; the text beside it says what it shows."


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects to Sphinx's event for a page that has been read."""
    app.connect("doctree-read", describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
