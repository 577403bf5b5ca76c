"""Every source that the code names is in the bibliography."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("losses", "metrics", "models", "statistics", "theory")
#: A surname, further authors or none, and a year.
NAMED = re.compile(
    r"([A-Z][\w'’-]+)(?: et al\.| (?:&|and) [A-Z][\w'’-]+|(?:, [A-Z][\w-]+)+ (?:&|and) [A-Z][\w-]+)?,? "
    r"\(?((?:19|20)\d\d)\b"
)


def plain(text: str) -> str:
    """Letters without accents and without BibTeX's braces and commands."""
    bare = re.sub(r"[{}\\'\"`^~]", "", text)
    return unicodedata.normalize("NFKD", bare).encode("ascii", "ignore").decode().casefold()


def test_every_source_that_the_code_names_is_in_the_bibliography() -> None:
    entries = (ROOT / "book/references.bib").read_text(encoding="utf-8").split("\n@")
    known = [
        (plain(author[1]), year[1])
        for entry in entries
        if (author := re.search(r"author\s*=\s*\{(.*)\}", entry))
        and (year := re.search(r"year\s*=\s*\{(\d+)\}", entry))
    ]
    assert len(known) == len(entries)
    named = {
        (found[1], found[2])
        for room in ROOMS
        for path in (ROOT / "src/lossatlas" / room).rglob("*.py")
        for found in NAMED.finditer(re.sub(r"\s+", " ", path.read_text(encoding="utf-8")))
    }
    assert len(named) > 40
    missing = {
        (name, year)
        for name, year in named
        if not any(plain(name) in authors and year == when for authors, when in known)
    }
    assert not missing
