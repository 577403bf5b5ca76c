"""Makes the built book read without a network.

Five things, each at its place in a Sphinx build:

1. MathJax is copied from the Python package ``sphinx-mathjax-offline`` into ``_static/mathjax``:
   the TeX-to-CHTML bundle, its fonts and its lazily loaded TeX extensions, about 2.5 MB of 24 MB.
   A page without a formula does not fetch it.
2. DataTables, which the table of results uses, is copied from the Python package ``itables``.
3. Scripts and styles that other extensions ask a content delivery network for are dropped from
   every page, and page scripts (``_static/pages/NAME.js``) are kept off every page but NAME.
4. Of the theme's two thousand icons the pages keep those that they show: 0.1 of 1.5 MB on each page.
5. When the build ends, each page that it has written is read once more: a resource with an address
   outside the book is a warning, which ``-W`` turns into a failed build.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psutil
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.util import logging

logger = logging.getLogger(__name__)

MATHJAX_PACKAGE = "sphinx-mathjax-offline"  # a directory name, not an identifier
MATHJAX_PARTS = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")

# Attributes through which a browser fetches on its own, without a click.
FETCHING = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
    "link": ("href",),
}
# <link> relations that only name a page and fetch nothing.
PASSIVE_LINKS = {"canonical", "next", "prev", "index", "search", "author", "license", "help"}


def is_external(address: str | None) -> bool:
    """Whether a browser would leave the book for this address."""
    return bool(address) and re.match(r"\s*(?:[a-z]+:)?//", str(address), re.I) is not None


def mathjax_source() -> Path:
    """The folder of MathJax's files inside the installed Python package."""
    spec = importlib.util.find_spec(MATHJAX_PACKAGE)
    if spec is None or spec.origin is None:
        raise ExtensionError(
            f"The book's formulas need the Python package {MATHJAX_PACKAGE!r}, which is not "
            "installed: install the extra, pip install 'lossatlas[book]'."
        )
    return Path(spec.origin).parent / "static" / "mathjax"


def copy_mathjax(app: Sphinx) -> None:
    """Copies the wanted parts of MathJax into the output, once."""
    if app.builder.format != "html":
        return
    source, target = mathjax_source(), Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX_PARTS:
        origin, copy = source / part, target / part
        if not origin.exists():
            raise ExtensionError(f"{MATHJAX_PACKAGE} has no {part!r}: its layout has changed.")
        if copy.exists():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, copy)
        else:
            shutil.copy2(origin, copy)


def as_classic_script(module: str) -> str:
    """A script that a page of ``file://`` may load, from a module: its default export becomes ``DataTable``.

    A browser refuses modules from disk.
    """
    exports = re.search(r"\bexport\{[^}]*?([\w$]+) as default[^}]*\};?", module)
    if exports is None:
        raise ExtensionError("itables' bundle has no default export: its layout has changed.")
    before, after = module[: exports.start()], module[exports.end() :]
    return f"(() => {{\n{before}globalThis.DataTable = {exports[1]};{after}\n}})();\n"


def copy_datatables(app: Sphinx) -> None:
    """Copies DataTables and its style; the script carries the licences of its parts, that of itables lies beside it."""
    package = importlib.metadata.distribution("itables")
    target = Path(app.outdir) / "_static" / "datatables"
    made_from = target / "version.txt"
    same = made_from.is_file() and made_from.read_text(encoding="utf-8") == package.version
    if app.builder.format != "html" or same:
        return
    files = {file.name: Path(str(file.locate())) for file in package.files or []}
    target.mkdir(parents=True, exist_ok=True)
    bundle = files["dt_bundle.js"].read_text(encoding="utf-8")
    (target / "datatables.js").write_text(as_classic_script(bundle), encoding="utf-8")
    shutil.copy2(files["dt_bundle.css"], target / "datatables.css")
    shutil.copy2(files["LICENSE"], target / "LICENSE")
    made_from.write_text(package.version, encoding="utf-8")


def use_local_mathjax(app: Sphinx, config: Config) -> None:
    """Points ``sphinx.ext.mathjax`` at the copied bundle (a path inside ``_static``)."""
    config.mathjax_path = "mathjax/tex-chtml.js"


def _keep_script(script: Any, pagename: str, formulas: bool) -> bool:
    address = str(getattr(script, "filename", script) or "")
    body = str(getattr(script, "attributes", {}).get("body") or "")
    if is_external(address) or "THEBE_JS_URL" in body or address.endswith("sphinx-thebe.js"):
        return False
    if address.endswith(MATHJAX_PARTS[0]) and not formulas:
        return False
    page_script = re.search(r"(?:^|/)pages/([\w-]+)\.(?:js|css)", address)
    return page_script is None or page_script.group(1) == pagename.rsplit("/", 1)[-1]


def clean_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Removes from one page what it must not fetch and the page scripts of other pages."""
    formulas = 'class="math' in str(context.get("body", ""))
    for kind in ("script_files", "css_files"):
        files = context.get(kind)
        if files is not None:
            context[kind] = [file for file in files if _keep_script(file, pagename, formulas)]


#: An icon in the theme's script: its name, then width, height, other names, code point, and one path or two.
_ICON = re.compile(
    r'"?([\w-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]*",(?:"[^"]*"|\["[^"]*","[^"]*"\])\],?'
)


def without_other_icons(script: str, used: set[str]) -> str:
    """The theme's script of icons with the definitions of those alone that are used, by name or other name."""

    def kept(icon: re.Match[str]) -> str:
        names = {icon[1], *(name.strip('"') for name in icon[2].split(","))}
        return icon[0] if names & used else ""

    return _ICON.sub(kept, script)


def keep_used_icons(app: Sphinx, exception: Exception | None) -> None:
    """Rewrites the script of icons with those that any page shows; the theme copies it whole in every build."""
    outdir = Path(app.outdir)
    script = outdir / "_static" / "scripts" / "fontawesome.js"
    if exception is not None or app.builder.format != "html" or not script.is_file():
        return
    used: set[str] = set()
    for page in outdir.rglob("*.html"):
        used |= set(re.findall(r"\bfa-([\w-]+)", page.read_text(encoding="utf-8")))
    script.write_text(
        without_other_icons(script.read_text(encoding="utf-8"), used), encoding="utf-8"
    )


class _Fetches(HTMLParser):
    """Collects the addresses outside the book that a page would fetch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and set((values.get("rel") or "").lower().split()) <= PASSIVE_LINKS:
            return
        for name in FETCHING.get(tag, ()):
            if is_external(values.get(name)):
                self.found.append(f"<{tag} {name}={values[name]!r}>")


#: A page without such an attribute fetches nothing from outside, and need not be parsed: links have href alone.
_MAY_FETCH = re.compile(
    r"""(?:<link\b[^>]*\bhref|\b(?:src|srcset|poster|data))\s*=\s*["']?\s*(?:[a-z]+:)?//""", re.I
)


def fetches(html: str) -> list[str]:
    """The tags of a page by which a browser would fetch something from outside the book."""
    if not _MAY_FETCH.search(html):
        return []
    parser = _Fetches()
    parser.feed(html)
    return parser.found


def report_fetches(app: Sphinx, exception: Exception | None) -> None:
    """Warns about every page that would fetch something from outside the book."""
    if exception is not None or app.builder.format != "html":
        return
    outdir, started = Path(app.outdir), psutil.Process().create_time()
    for page in sorted(outdir.rglob("*.html")):
        if "_static" in page.relative_to(outdir).parts or page.stat().st_mtime < started:
            continue
        for tag in fetches(page.read_text(encoding="utf-8")):
            logger.warning(
                "%s fetches from outside the book: %s", page.relative_to(outdir).as_posix(), tag
            )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the functions above to Sphinx's events."""
    app.connect("config-inited", use_local_mathjax, priority=900)
    app.connect("builder-inited", copy_mathjax)
    app.connect("builder-inited", copy_datatables)
    app.connect("html-page-context", clean_page, priority=900)
    app.connect("build-finished", keep_used_icons, priority=900)
    app.connect("build-finished", report_fetches, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
