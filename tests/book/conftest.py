"""Fixtures that open pages of the book in headless Chromium with the network blocked.

What a reader's browser would complain about on one page is the fixture ``complaints``.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
BUILT = BOOK / "_build" / "html"

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Every other host is unknown: cheaper than routing, which would also switch the cache off.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: pytest's output stays readable."""


@contextmanager
def _serve(folder: Path) -> Iterator[str]:
    """Serves a folder on a free local port and yields its address."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# Evaluated in the page once MathJax has finished: everything that a look at the page would show.
_LOOK = r"""
() => {
  const article = document.querySelector("article") || document.body;
  const hidden = "pre, code, script, style, textarea, mjx-container, .highlight";
  const copy = article.cloneNode(true);
  copy.querySelectorAll(hidden).forEach((node) => node.remove());
  const text = copy.textContent;
  const complaints = [];
  for (const raw of ["$$", "\\frac", "\\begin{", "\\left", "\\mathrm"]) {
    if (text.includes(raw)) complaints.push("raw TeX in the text: " + raw);
  }
  const wanted = article.querySelectorAll(".math").length;
  const drawn = article.querySelectorAll("mjx-container").length;
  if (wanted > 0 && drawn === 0) complaints.push(`${wanted} formulas, none drawn`);
  const wrong = article.querySelectorAll("mjx-merror, [data-mjx-error]");
  wrong.forEach((node) => complaints.push("formula error: " + node.textContent));
  if (article.textContent.includes("Traceback (most recent call last)")) {
    complaints.push("a traceback");
  }
  const bare = article.textContent.match(/<[\w.]+ object( at 0x[0-9a-f]+)?>/);
  if (bare) complaints.push("an object's name in place of what it shows: " + bare[0]);
  article.querySelectorAll("table").forEach((table) => {
    const cells = [...table.querySelectorAll("td")];
    if (!cells.some((cell) => cell.textContent.trim())) complaints.push("an empty table");
  });
  article.querySelectorAll("img").forEach((image) => {
    if (!image.complete || image.naturalWidth === 0) complaints.push("no picture: " + image.src);
    const alt = (image.getAttribute("alt") || "").trim();
    if (!alt || alt.includes("_images/")) complaints.push("no alt text: " + image.src);
  });
  const root = document.scrollingElement;
  if (root.scrollWidth > root.clientWidth + 1) {
    const widest = [...article.querySelectorAll("*")]
      .filter((node) => node.getBoundingClientRect().right > root.clientWidth + 1)
      .map((node) => node.tagName + "." + node.className)
      .slice(0, 3);
    complaints.push(`${root.scrollWidth} px wide in ${root.clientWidth} px: ${widest}`);
  }
  const name = location.pathname.split("/").pop().replace(".html", "");
  const language = ["es", "fr", "zh"].includes(name) ? name : "en";
  if (document.documentElement.lang !== language) complaints.push("page language is not " + language);
  return complaints;
}
"""


def _complaints(
    page: Any,
    address: str,
    *,
    origin: str,
    widths_px: tuple[int, ...] = (1280, 400),
    screenshots: Path | None = None,
    also: Callable[[Any], list[str]] | None = None,
) -> list[str]:
    """Opens a page with every other host blocked and lists what is wrong with it.

    An empty list means: no console error, no failed request, no request to another host, no
    uncaught exception, formulas drawn, no traceback, no empty table, every picture there and
    described, nothing wider than the window at any of the widths. `also` looks at the same visit.
    """
    found: list[str] = []

    def request(sent: Any) -> None:
        if not sent.url.startswith((origin, "data:", "blob:")):
            found.append(f"request outside the book: {sent.url}")

    def response(answer: Any) -> None:
        if answer.status >= 400:
            found.append(f"{answer.status} for {answer.url}")

    def console(message: Any) -> None:
        if message.type == "error":
            found.append(f"console: {message.text}")

    watched = {
        "request": request,
        "response": response,
        "requestfailed": lambda request: found.append(f"failed request: {request.url}"),
        "pageerror": lambda error: found.append(f"uncaught: {error}"),
        "console": console,
    }
    for event, watch in watched.items():
        page.on(event, watch)
    page.set_viewport_size({"width": widths_px[0], "height": 900})  # one before left another
    page.goto(address, wait_until="load")
    page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    for width_px in widths_px:
        page.set_viewport_size({"width": width_px, "height": 900})
        found += [f"at {width_px} px: {problem}" for problem in page.evaluate(_LOOK)]
        if screenshots is not None:
            name = address.removeprefix(origin).strip("/").replace("/", "-")
            page.screenshot(path=screenshots / f"{name}-{width_px}.png", full_page=True)
    complaints = list(found)  # what `also` fetches is none
    if also is not None:
        page.set_viewport_size({"width": widths_px[0], "height": 900})
        complaints += also(page)
    page.goto("about:blank")  # what still comes belongs to this address
    for event, watch in watched.items():
        page.remove_listener(event, watch)
    return complaints


# Pages that Sphinx makes of itself: they have no article of ours.
MADE_BY_SPHINX = {"genindex.html", "search.html", "index.html", "py-modindex.html"}


def _pages_of(book: Path) -> list[str]:
    """The pages a reader can open, as addresses relative to the book."""
    found = (page.relative_to(book) for page in book.rglob("*.html"))
    wanted = (page for page in found if page.parts[0] not in {"_static", "_sources"})
    return sorted(page.as_posix() for page in wanted if page.name not in MADE_BY_SPHINX)


@pytest.fixture(scope="session")
def pages_of() -> Callable[[Path], list[str]]:
    """``pages_of(book)``: the pages a reader can open, see ``_pages_of``."""
    return _pages_of


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that want it are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no browser: `chromium` is not on the PATH")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def extension() -> Callable[[str], ModuleType]:
    """``extension(name)``: a module of ``book/_ext``."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, BOOK / "_ext" / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def built_book() -> Path:
    """The folder of the built book, where somebody has built it."""
    if not (BUILT / "intro.html").exists():
        pytest.skip("no built book in book/_build/html: run `make book` first")
    return BUILT


@pytest.fixture(scope="session")
def serve() -> Callable[[Path], Any]:
    """A function that serves a folder on a free local port, for a ``with`` statement."""
    return _serve


@pytest.fixture(scope="session")
def complaints(browser: Any) -> Iterator[Callable[..., list[str]]]:
    """``complaints(address, origin=…)`` lists what is wrong with a page: see ``_complaints``."""
    # One tab for all pages: as in a reader's browser, scripts and fonts are fetched and compiled once.
    page = browser.new_page()
    yield functools.partial(_complaints, page)
    page.close()
