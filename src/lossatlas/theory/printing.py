"""Formulas as the book prints them, made from SymPy's own expressions."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import sympy as sp
from IPython.display import Markdown
from sympy.printing.latex import LatexPrinter

from lossatlas.theory.symbols import LATEX_NAMES


class _BookPrinter(LatexPrinter):
    """Writes 2t − D where SymPy writes −D + 2t: a sum begins with a term that is added."""

    def _as_ordered_terms(self, expr: sp.Expr, order: str | None = None) -> list[sp.Expr]:
        terms = super()._as_ordered_terms(expr, order=order)
        return sorted(terms, key=lambda term: bool(term.could_extract_minus_sign()))


def latex(expression: sp.Basic) -> str:
    """TeX of an expression, with the book's names for its symbols."""
    settings = {"symbol_names": LATEX_NAMES, "ln_notation": True}
    return str(_BookPrinter(settings).doprint(expression))


def equation(left: str, *expressions: sp.Basic, where: Mapping[str, sp.Basic] | None = None) -> str:
    """``left = expression = …`` as a displayed formula, followed by what its letters stand for.

    Args:
        left: TeX of the left side, the only part that is not computed.
        expressions: one or more right sides.
        where: abbreviations to explain, from TeX to expression.
    """
    sides = " = ".join([left, *(latex(expression) for expression in expressions)])
    # MathJax scrolls a line that is too wide for a phone; a line break here would split formulas.
    lines = f"$$\n{sides}\n$$"
    if where:
        named = ", ".join(f"${name} = {latex(value)}$" for name, value in where.items())
        lines += f"\n\nwith {named}."
    return lines


def show(*paragraphs: str) -> Markdown:
    """Paragraphs of Markdown as the output of a notebook's cell."""
    return Markdown("\n\n".join(paragraphs))


def _cell(value: object) -> str:
    """One value of a table: formulas as TeX, numbers with four digits."""
    if isinstance(value, sp.Basic):
        return f"${latex(value)}$"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        plain = value == 0 or 1e-3 <= abs(value) < 1e5
        if plain:
            return f"{value + 0.0:.5g}"  # no "-0"
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"${mantissa}\\cdot 10^{{{int(exponent)}}}$"
    # A vertical bar would end the cell.
    return str(value).replace("|", "\\|")


def markdown_table(*frames: pd.DataFrame) -> str:
    """Tables with the same columns as one table of Markdown.

    Raises:
        ValueError: there is no row: a page must not show an empty table.
    """
    frame = pd.concat(frames, ignore_index=True)
    if frame.empty:
        raise ValueError("the table has no row; expected at least one")
    numbers = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    lines = [
        "| " + " | ".join(_cell(column) for column in frame.columns) + " |",
        "|" + "|".join("---:" if right else ":---" for right in numbers) + "|",
    ]
    lines += [
        "| " + " | ".join(_cell(value) for value in row) + " |"
        for row in frame.itertuples(index=False)
    ]
    return "\n".join(lines)


def tables(*frames: pd.DataFrame) -> Markdown:
    """One table, made of frames with the same columns, as the output of a notebook's cell."""
    return Markdown(markdown_table(*frames))


def worst(*frames: pd.DataFrame) -> pd.DataFrame:
    """Checks of several losses, one row a loss: the largest differences over its cases.

    Args:
        frames: tables of :func:`lossatlas.theory.check_form` and its like.
    """
    table = pd.concat(frames, ignore_index=True)
    if "proof" not in table:
        table["proof"] = "by hand"
    grouped = table.groupby("gradient of", sort=False)
    return grouped.agg(
        cases=("case", "size"),
        proof=("proof", "first"),
        **{name: (name, "max") for name in ("vs autograd", "vs differences")},
    ).reset_index()
