"""The ledger of claims: data, computed verdicts, and the page made from them.

A claim's data stand in ``claims.yaml``. Its verdict is returned by the function that
:func:`lossatlas.theory.verdict.settles` registered for it, or, for a claim that needs training
runs, read from ``results/STUDY/verdicts.json``; until that file is there it is "awaiting".

``verdicts.json`` is ``{"schema": 1, "verdicts": {"7": {"verdict": "false", "because": "…",
"condition": "…", "said": "false at 3 %, open elsewhere", "checks": {…}}}}``, keyed by claim id, written by
:mod:`lossatlas.claims.judge` from the study's records.
"""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from IPython.display import Markdown

from lossatlas.theory.verdict import Verdict, noted, settled

#: The modules whose functions settle claims.
CHAPTERS = (
    "two_gradients",
    "information",
    "categorical",
    "weighting",
    "focal",
    "overlap",
    "atlas",
    "metric_facts",
)
KINDS = ("derivation", "computation", "experiment")
#: Languages a wording may be in, by their code.
LANGUAGES = {"es": "Spanish", "fr": "French", "zh": "Chinese", "en": "English"}
#: ``at`` of a wording that was seen in the source's document, and at no address.
SEED = "seed"
_LABELS = ("true", "false", "conditional", "open", "awaiting", "withdrawn")


class LedgerError(ValueError):
    """The ledger's data are inconsistent: says which claim, what was expected and what came."""


@dataclass(frozen=True)
class Claim:
    """One claim of the ledger; the fields are those of ``claims.yaml``."""

    id: str
    source: tuple[str, ...]
    claim: str
    kind: str
    losses: tuple[str, ...]
    recorded: str = ""
    chapter: str = ""
    study: str = ""
    prediction: str = ""
    erratum: str = ""
    remark: str = ""  #: how to read the verdict, where the rows behind it need a word
    quote: dict[str, str] = field(default_factory=dict)
    continued: dict[str, str] = field(default_factory=dict)


@cache
def load() -> tuple[dict[str, dict[str, str]], tuple[Claim, ...]]:
    """Sources and claims from ``claims.yaml``, checked.

    Raises:
        LedgerError: an unknown key, kind or source, a quote that is too long or that does not say
            where it was seen, or a claim that nothing settles.
    """
    text = files("lossatlas.claims").joinpath("claims.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    claims = []
    for entry in data["claims"]:
        known = set(Claim.__dataclass_fields__)
        if set(entry) - known:
            raise LedgerError(
                f"claim {entry.get('id')}: unknown keys {sorted(set(entry) - known)}; "
                f"expected some of {sorted(known)}"
            )
        claim = Claim(
            **{
                **entry,
                "id": str(entry["id"]),
                "source": tuple(entry["source"]),
                "losses": tuple(entry["losses"]),
            }
        )
        _check(claim, set(data["sources"]))
        _check_quote(claim, data["sources"])
        claims.append(claim)
    repeated = [name for name, count in Counter(c.id for c in claims).items() if count > 1]
    if repeated:
        raise LedgerError(f"claim ids occur twice: {repeated}")
    return data["sources"], tuple(claims)


def _check(claim: Claim, sources: set[str]) -> None:
    if claim.kind not in KINDS:
        raise LedgerError(f"claim {claim.id}: kind {claim.kind!r}, expected one of {KINDS}")
    if not set(claim.source) <= sources:
        raise LedgerError(f"claim {claim.id}: source {claim.source}, expected some of {sources}")
    if claim.kind == "experiment":
        if not (claim.study and claim.prediction):
            raise LedgerError(f"claim {claim.id}: an experiment needs `study` and `prediction`")
    elif not claim.chapter:
        raise LedgerError(f"claim {claim.id}: expected the `chapter` that shows it")


def _check_quote(claim: Claim, sources: dict[str, dict[str, str]]) -> None:
    quote, name = claim.quote, f"claim {claim.id}"
    if claim.id.startswith("H"):  # the book's own findings have no other wording
        return
    if set(quote) == {"missing"}:
        return
    if "missing" in quote or not {"text", "language"} <= set(quote):
        raise LedgerError(
            f"{name}: the quote has {sorted(quote)}; expected `text` and `language`, or `missing` alone"
        )
    if set(quote) - {"text", "language", "translation", "at"} or quote["language"] not in LANGUAGES:
        raise LedgerError(
            f"{name}: unknown keys or language in the quote {quote}; languages: {sorted(LANGUAGES)}"
        )
    words, han = len(quote["text"].split()), len(re.findall(r"[\u4e00-\u9fff]", quote["text"]))
    if words > 15 or han > 30:
        raise LedgerError(
            f"{name}: the quote has {words} words and {han} Chinese characters, "
            "at most 15 and 30 are quoted"
        )
    if (quote["language"] == "en") == ("translation" in quote):
        raise LedgerError(f"{name}: a quote has a translation unless it is English; got {quote}")
    where = _seen_at(claim, sources)
    if not (where.startswith("http") or (where == SEED and _document(claim, sources))):
        raise LedgerError(
            f"{name}: got {where!r}; expected the address at which the wording was seen, or `at: {SEED}` "
            "where it was seen in the source's `file` alone"
        )
    if claim.continued:
        _check_quote(replace(claim, quote=claim.continued, continued={}), sources)


def _document(claim: Claim, sources: dict[str, dict[str, str]]) -> str:
    """The file of the source in whose language the wording is, or of the first; empty without one."""
    own = _in_its_language(claim, sources) or [sources[claim.source[0]]]
    return own[0].get("file", "")


def _seen_at(claim: Claim, sources: dict[str, dict[str, str]]) -> str:
    """Where the wording of a claim was seen: its own address, its source's copy, or `SEED`."""
    first, own = sources[claim.source[0]], _in_its_language(claim, sources)
    if "at" in claim.quote:
        return claim.quote["at"]
    if claim.quote["language"] == "en":
        return first.get("english", first.get("original", ""))
    return own[0].get("address", "") if own else ""


def _in_its_language(claim: Claim, sources: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    language = LANGUAGES[claim.quote["language"]]
    return [sources[key] for key in claim.source if sources[key]["language"] == language]


def verdict_of(claim: Claim, results_dir: str | Path = "results") -> Verdict:
    """The verdict on a claim: computed, read from a study's records, or "awaiting".

    Raises:
        LedgerError: nothing settles the claim, or a record does not have the form it should.
    """
    _import_chapters()
    if claim.kind == "experiment":
        return _from_records(claim, Path(results_dir))
    try:
        return settled()[claim.id]()
    except KeyError:
        raise LedgerError(f"claim {claim.id}: no function settles it") from None


def note_of(claim: Claim) -> str:
    """What a computation adds to a claim that training settles; empty where nothing is computed.

    Raises:
        LedgerError: the claim names a chapter, and no function there notes anything.
    """
    if claim.kind != "experiment" or not claim.chapter:
        return ""
    _import_chapters()
    try:
        return noted()[claim.id]()
    except KeyError:
        raise LedgerError(
            f"claim {claim.id}: no function notes what the chapter {claim.chapter!r} shows; "
            "expected one with `@notes`, or no `chapter`"
        ) from None


def _import_chapters() -> None:
    for module in CHAPTERS:
        importlib.import_module(f"lossatlas.theory.{module}")


def _from_records(claim: Claim, results_dir: Path) -> Verdict:
    found = _recorded(results_dir / claim.study).get(claim.id)
    if found is None:
        if claim.study in _withdrawn(claim, results_dir):
            return Verdict("withdrawn", _withdrawal([claim.study], results_dir))
        return Verdict("awaiting", f"Awaiting the study `{claim.study}`.")
    details = [
        (words, check["place"], check["found"], check["outcome"])
        for words, checks in found.get("checks", {}).items()
        for check in checks
        if not check["awaits"]
    ]
    return Verdict(
        found["verdict"],
        found["because"],
        found.get("condition", ""),
        found.get("said", ""),
        tuple(details),
    )


def _withdrawn(claim: Claim, results_dir: Path) -> list[str]:
    """The withdrawn studies that had settled a claim or added to it.

    A study of the same name that has been run since, with its own verdicts, stands.
    """
    path = results_dir / "withdrawn" / "withdrawn.json"
    if not path.is_file():
        return []
    studies: dict[str, list[str]] = _checked(path)["studies"]
    return [
        study
        for study, claims in studies.items()
        if claim.id in claims and claim.id not in _recorded(results_dir / study)
    ]


def _withdrawal(studies: Sequence[str], results_dir: Path) -> str:
    """In one sentence, that what some studies said does not stand, since when and why."""
    date = _checked(results_dir / "withdrawn" / "withdrawn.json")["date"]
    names = ", ".join(f"`{study}`" for study in studies)
    noun, verb = ("study", "awaits") if len(studies) == 1 else ("studies", "await")
    return (
        f"What the {noun} {names} said is withdrawn since {date} ({{doc}}`how the error was found </retractions>`) "
        f"and {verb} a rerun."
    )


def _recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """What the records of a study say, by claim; nothing without a ``verdicts.json``."""
    path = folder / "verdicts.json"
    if not path.is_file():
        return {}
    verdicts: dict[str, dict[str, Any]] = _checked(path)["verdicts"]
    return verdicts


def _checked(path: Path) -> dict[str, Any]:
    """A file of this schema; LedgerError for another."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if data.get("schema") != 1:
        raise LedgerError(f"{path}: schema {data.get('schema')!r}, expected 1")
    return data


def further(claim: Claim, results_dir: str | Path = "results") -> list[str]:
    """What studies say of a claim that another study or a computation settles, a line each.

    It changes no verdict: the study that settles a claim was named before it ran.
    """
    others = [each for each in _withdrawn(claim, Path(results_dir)) if each != claim.study]
    lines = [_withdrawal(others, Path(results_dir))] if others else []
    for path in sorted(Path(results_dir).glob("*/verdicts.json")):
        found = _recorded(path.parent).get(claim.id)
        if found is not None and path.parent.name != claim.study:
            text = f"{found['because']} {found.get('condition', '')}".strip()
            verdict = "open" if found["verdict"] == "awaiting" else found["verdict"]
            verdict = found.get("said") or verdict
            lines.append(f"The study `{path.parent.name}` says: **{verdict}**. {text}")
    return lines


def all_verdicts(results_dir: str | Path = "results") -> dict[str, Verdict]:
    """The verdict on every claim, by id."""
    return {claim.id: verdict_of(claim, results_dir) for claim in load()[1]}


def counts(verdicts: dict[str, Verdict]) -> pd.DataFrame:
    """How many of the claims and of the headline findings have each verdict."""
    rows = []
    for title, headline in (("claims", False), ("headline findings", True)):
        found = Counter(
            v.verdict for name, v in verdicts.items() if name.startswith("H") == headline
        )
        every = {label: found[label] for label in _LABELS}
        rows.append({"": title} | every | {"in all": found.total()})
    return pd.DataFrame(rows)


def _quote(claim: Claim) -> str:
    """The wording of the original, or that nothing at hand shows it."""
    quote = claim.quote
    if not quote:
        return ""
    if "missing" in quote:
        return f"[No wording of the original: {quote['missing']}.]{{.claim-facts}}"
    stop = "" if quote.get("translation", ".").endswith(("?", "!")) else "."
    said = f": {quote['translation']}{stop}" if "translation" in quote else "."
    text = f"“{quote['text']}” ({_place(claim)}){said}"
    if claim.continued:
        text += " " + _quote(replace(claim, quote=claim.continued, continued={}))
    return text


def _place(claim: Claim) -> str:
    """Where the wording was seen, as Markdown."""
    sources, language = load()[0], claim.quote["language"]
    where = _seen_at(claim, sources)
    if where == SEED:
        return f"the document's file `{_document(claim, sources)}`"
    if language == "en":
        return f"[English answer]({where}), which the source translates"
    return f"[{LANGUAGES[language]} copy]({where})"


def settle(*ids: int | str) -> Markdown:
    """Verdicts for a chapter, each with the anchor ``shown-N`` that the ledger links to.

    A claim that training settles shows what the chapter adds to it; its verdict stands in the ledger.
    """
    by_id = {claim.id: claim for claim in load()[1]}
    blocks = []
    for name in map(str, ids):
        claim = by_id[name]
        if claim.kind == "experiment":
            said = f"**Only training can settle it** (study `{claim.study}`). {note_of(claim)}"
        else:
            verdict = verdict_of(claim)
            condition = f" *{verdict.condition}*" if verdict.condition else ""
            said = f"**{verdict.verdict.capitalize()}.** {verdict.because}{condition}"
        blocks.append(
            f"(shown-{name.lower()})=\n"
            f"**[Claim {name}](#claim-{name.lower()}).** {claim.claim}\n\n{said}"
        )
    return Markdown("\n\n".join(blocks))


def entry(claim: Claim, verdict: Verdict, added: Sequence[str] = ()) -> str:
    """One claim of the page, as Markdown: a block with the anchor ``claim-N`` and classes to filter by.

    `added` are the lines of `further`.
    """
    name = claim.id.lower()
    classes = ["claim", f"verdict-{verdict.verdict}", f"kind-{claim.kind}"]
    classes += [f"source-{source}" for source in claim.source]
    classes += [f"loss-{loss.replace('_', '-')}" for loss in claim.losses]
    told = f"{', '.join(claim.source)} · {claim.kind} · {', '.join(f'`{x}`' for x in claim.losses)}"
    changed = claim.recorded and claim.recorded != verdict.verdict
    note = note_of(claim)
    settled_by = claim.kind == "experiment" and verdict.verdict not in ("awaiting", "withdrawn")
    paragraphs = [
        f"(claim-{name})=\n::::{{container}} {' '.join(classes)}\n"
        f"**{claim.id}** [{verdict.text}]{{.verdict}} {claim.claim}",
        f"[{told}]{{.claim-facts}}",
        _quote(claim),
        verdict.because,
        verdict.condition and f"*{verdict.condition}*",
        claim.remark and f"**How to read this.** {claim.remark}",
        _numbers(verdict) if verdict.details else "",
        claim.prediction and f"Prediction, written down beforehand: {claim.prediction}",
        f"**An earlier verification noted “{claim.recorded}”.**" if changed else "",
        note and f"What can be computed without training: {note}",
        *added,
        claim.chapter and f"[The cell that shows it](#shown-{name})",
        f"{{doc}}`The study that settles it <studies/{claim.study}>`" if settled_by else "",
    ]
    return "\n\n".join([*filter(None, paragraphs), "::::"])


def _numbers(verdict: Verdict) -> str:
    """The conditions of a study's predictions, folded: what was found at each place, and how it was judged."""
    rows = ["| condition | place | found | judged |", "|---|---|---|---|"]
    rows += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in verdict.details
    ]
    return "\n".join([":::{dropdown} The numbers", *rows, ":::"])


def page(
    verdicts: dict[str, Verdict], headline: bool = False, results_dir: str | Path = "results"
) -> Markdown:
    """All claims (or the headline findings) as the output of the ledger's notebook."""
    chosen = [claim for claim in load()[1] if claim.id.startswith("H") == headline]
    blocks = (entry(claim, verdicts[claim.id], further(claim, results_dir)) for claim in chosen)
    return Markdown("\n\n".join(blocks))


def sources_table() -> pd.DataFrame:
    """Who makes the claims, and for how many of them a wording was seen.

    A claim that two sources make is quoted once, in the language of the first.
    """
    sources, claims = load()
    rows = []
    for key, source in sources.items():
        made = [claim for claim in claims if key in claim.source]
        found = Counter(LANGUAGES.get(claim.quote.get("language", ""), "") for claim in made)
        links = {"a public copy": "address", "English answer": "english", "thread": "original"}
        rows.append(
            {
                "key": key,
                "language": source["language"],
                "what": source["what"],
                "file": source.get("file", "—"),
                "claims": len(made),
                "quoted": found[source["language"]],
                "quoted in English": found["English"],
                "no wording at hand": sum("missing" in claim.quote for claim in made),
                "pages": ", ".join(
                    f"[{label}]({source[at]})" for label, at in links.items() if at in source
                )
                or "—",
            }
        )
    return pd.DataFrame(rows)


def filters(verdicts: dict[str, Verdict]) -> str:
    """The filter's controls as HTML; ``_static/pages/ledger.js`` gives them life."""
    _, claims = load()

    def choice(name: str, label: str, values: list[str]) -> str:
        options = "".join(f'<option value="{value}">{value}</option>' for value in values)
        return (
            f'<label>{label} <select id="filter-{name}" data-class="{name}">'
            f'<option value="">all</option>{options}</select></label>'
        )

    found = {v.verdict for v in verdicts.values()}
    made = sorted({loss for claim in claims for loss in claim.losses})
    parts = [
        choice("verdict", "Verdict", [label for label in _LABELS if label in found]),
        choice("source", "Source", ["es", "zh1", "fr", "zh2", "book"]),
        choice("loss", "Loss", made),
    ]
    return (
        '<form id="ledger-filter" hidden aria-label="Filter the claims">'
        + "".join(parts)
        + '<output id="ledger-count" aria-live="polite"></output></form>'
    )
