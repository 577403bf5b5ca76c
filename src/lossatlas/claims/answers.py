"""The ledger's answers in the languages of its sources, with the numbers of the English sentences.

``book/answers/LANGUAGE.yaml`` has for each claim its wording (``claim``) and, where something settles it, the reason
(``because``) with ``{0}``, ``{1}``, … for the numbers of the English reason in their order. ``of`` and ``because_of``
say which English texts were translated: where one has changed since, the page gives the English text instead.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import yaml

from lossatlas.claims import ledger

#: Where the translations are, from the repository's root.
FOLDER = Path("book/answers")
#: For each language the sources whose claims it answers.
SOURCES = {"es": ("es",), "fr": ("fr",), "zh": ("zh1", "zh2")}
_WORDS = {
    "es": {
        "true": "cierto", "false": "falso", "conditional": "depende", "open": "sin decidir", "awaiting": "pendiente",
        "withdrawn": "retirado", "head": ("", "Afirmación", "Veredicto", "Por qué"),
        "awaits": "Falta el estudio `{study}`.",
        "studied": "Lo juzga el estudio `{study}`; [las cifras](#claim-{claim}).",
        "told": "Retiramos el resultado del estudio `{study}`; falta repetirlo.",
    },
    "fr": {
        "true": "vrai", "false": "faux", "conditional": "cela dépend", "open": "indécis", "awaiting": "en attente",
        "withdrawn": "retiré", "head": ("", "Affirmation", "Verdict", "Pourquoi"),
        "awaits": "L'étude `{study}` manque encore.",
        "studied": "Jugé par l'étude `{study}` ; [les chiffres](#claim-{claim}).",
        "told": "Nous avons retiré le résultat de l'étude `{study}` ; elle est à refaire.",
    },
    "zh": {
        "true": "对", "false": "错", "conditional": "视条件而定", "open": "未定", "awaiting": "待定",
        "withdrawn": "已撤回", "head": ("", "论断", "结论", "理由"),
        "awaits": "尚缺研究 `{study}`。",
        "studied": "由研究 `{study}` 判定；[数字](#claim-{claim})。",
        "told": "研究 `{study}` 的结果已撤回，需要重做。",
    },
}  # fmt: skip
_NUMBER = re.compile(r"[-−]?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")


def numbers_of(sentence: str) -> list[str]:
    """The numbers of a sentence in their order, as they are written."""
    return _NUMBER.findall(sentence)


def fingerprint(sentence: str) -> str:
    """Eight hexadecimal digits that change with the sentence's words and not with its numbers."""
    return hashlib.sha256(_NUMBER.sub("#", sentence).encode()).hexdigest()[:8]


def page(language: str, results_dir: str | Path = "results", folder: Path = FOLDER) -> str:
    """A Markdown table of the claims that sources in `language` make: wording, verdict, reason.

    Args:
        language: a key of `SOURCES`.
        results_dir: folder of the records that settle claims.
        folder: of the translations.

    Raises:
        LedgerError: a translation names a number that the English sentence does not have.
    """
    words = _WORDS[language]
    rows = yaml.safe_load((folder / f"{language}.yaml").read_text(encoding="utf-8"))
    translated = {str(row["id"]): row for row in rows}
    lines = ["| " + " | ".join(words["head"]) + " |", "|---|---|---|---|"]
    for claim in ledger.load()[1]:
        if not set(claim.source) & set(SOURCES[language]):
            continue
        verdict = ledger.verdict_of(claim, results_dir)
        row = translated.get(claim.id, {})
        wording = row["claim"] if row.get("of") == fingerprint(claim.claim) else claim.claim
        because = _because(claim, verdict, row, language)
        link = f"[{claim.id}](#claim-{claim.id.lower()})"
        lines.append(f"| {link} | {wording} | **{words[verdict.verdict]}** | {because} |")
    return "\n".join(lines) + "\n"


def _because(claim: ledger.Claim, verdict: ledger.Verdict, row: dict, language: str) -> str:
    """The reason in the language; in English where it has changed since it was translated."""
    if verdict.verdict in ("awaiting", "withdrawn"):
        kind = "awaits" if verdict.verdict == "awaiting" else "told"
        return str(_WORDS[language][kind]).format(study=claim.study)
    if claim.kind == "experiment":  # its sentences change with the runs that are there
        return str(_WORDS[language]["studied"]).format(study=claim.study, claim=claim.id.lower())
    if row.get("because_of") != fingerprint(verdict.because):
        return verdict.because.replace("|", "\\|")
    found = numbers_of(verdict.because)
    if language in ("es", "fr"):
        found = [number.replace(".", ",") for number in found]
    try:
        return str(row["because"]).format(*found)
    except IndexError:
        raise ledger.LedgerError(
            f"{language}, claim {claim.id}: expected at most {len(found)} numbers ({', '.join(found)}), "
            f"got {row['because']!r}"
        ) from None
