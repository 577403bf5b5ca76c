"""What a chapter on a family of losses shows: the formulas, the code, the records, other libraries.

Nothing here is typed from a result: the formulas are those whose gradients are proved, the code is read from the
package, the numbers from ``results/``.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import sympy as sp
from IPython.display import Markdown

from lossatlas.theory.atlas import share_values
from lossatlas.theory.forms import FORMS, ClosedForm, squared_sums
from lossatlas.theory.printing import equation, latex, markdown_table, show
from lossatlas.theory.symbols import A, W, n, p, p_t, t

#: The last layer that can answer, and the study that trained with it.
_LAYER, _STUDY = "none4_prior", "results/begin"
_TITLES = {"smp": "segmentation_models_pytorch", "monai": "MONAI", "kornia": "kornia"}
_BELOW = (
    "*Medians over seeds on the test images: no activation before the last layer, prior bias, small U-Net, drawn "
    "digits. The calibration error is that of the foreground's pixels. Study [`begin`](studies/begin.ipynb).*"
)
#: What a library does where a property fails that holds under any convention.
_FAILS = {
    "ignoring": "ignored pixels still count",
    "all ignored": "a batch without a valid pixel does not give 0",
    "half precision": "wrong in half precision",
    "stray label": "accepts a label that is no class",
    "focal, gamma < 1": "the gradient is NaN for γ < 1 at a certain pixel",
    "float32 at size": "in float32 the gradient of a large image is mostly rounding error",
    "takes logits": "reads logits as probabilities",
}


def formulas(names: Sequence[str]) -> Markdown:
    """Losses and their gradients at the logit of one pixel, a title and two displayed formulas for each.

    The formulas are those of `lossatlas.theory.FORMS`, whose gradients are proved from the losses. A sum runs over the
    pixels; the letters that are no parameters are explained below each loss.

    Args:
        names: losses of `lossatlas.theory.FORMS`, in the order of the page.

    Raises:
        ValueError: a name is none of them.
    """
    unknown = [name for name in names if name not in FORMS]
    if unknown:
        raise ValueError(f"expected names of {list(FORMS)}, got {unknown}")
    return show(*(_entry(FORMS[name]) for name in names))


def as_sums(form: ClosedForm) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """The loss of the whole image as Σ ``pixel`` / ``divisor`` + ``region``.

    A form states its loss as a function of one pixel, with the other pixels' part of a sum as a symbol of its own
    (S = S_rest + p). A reader wants the whole sums.

    Args:
        form: a loss of `lossatlas.theory.FORMS`.

    Returns:
        ``pixel``, in one pixel's p and t, 0 for a loss of regions; ``divisor``, N or the sum W of the weights; and
        ``region``, in S, T, I and the like, 0 for a loss of pixels.
    """
    whole_sums = {}
    for whole, parts in form.whole.items():
        if whole != parts:
            (rest,) = (each for each in parts.free_symbols if each.name.endswith("_rest"))
            whole_sums[rest] = whole - (parts - rest)
    loss = form.loss.subs(whole_sums)
    one = sp.Add(*(term for term in sp.Add.make_args(loss) if term.has(p, t, p_t)))
    divisor = W if one.has(W) else n
    return one * divisor, divisor, loss - one


def _entry(form: ClosedForm) -> str:
    """Title, loss, gradient and explained letters of one loss."""
    used = form.gradient.free_symbols.union(*(side.free_symbols for side in as_sums(form)))
    where = [f"${latex(a)} = {latex(b)}$" for a, b in form.definitions.items() if a in used]
    if form.sums is squared_sums:
        where.append(r"$S = \sum p^2$, $T = \sum t^2$")
    if A in used:
        where.append(r"$A = \sum |p - t|$")
    lines = [
        f"**{form.title[0].upper()}{form.title[1:]}** (`{form.name}`)",
        f"$$\nL = {_loss(form)}\n$$",
        equation(r"\frac{\partial L}{\partial z}", form.gradient),
    ]
    return "\n\n".join([*lines, f"with {', '.join(where)}."] if where else lines)


def _loss(form: ClosedForm) -> str:
    """TeX of the loss of the whole image."""
    pixel, divisor, region = as_sums(form)
    if pixel == 0:
        return latex(region)
    terms = sp.Add.make_args(pixel)
    minus = all(term.could_extract_minus_sign() for term in terms)
    summand = latex(-pixel if minus else pixel)
    if len(terms) > 1:
        summand = rf"\left({summand}\right)"
    mean = rf"\frac{{1}}{{{latex(divisor)}}} \sum {summand}"
    # The region's part first: behind the sum it would read as a part of the summand.
    before = "" if region == 0 else latex(region)
    return f"{before} {'-' if minus else '+' * bool(before)} {mean}".strip()


def code(*objects: type | Callable[..., object]) -> Markdown:
    """The source of classes or functions without their docstrings, as a listing; a method names its class.

    Args:
        objects: classes, methods or functions of the package; each is read when the page is made.
    """
    where = {Path(inspect.getsourcefile(each) or "").name for each in objects}
    listing = "\n\n".join(
        _owner(each) + _without_docstrings(inspect.getsource(each)) for each in objects
    )
    files = ", ".join(f"`lossatlas/losses/{name}`" for name in sorted(where))
    return Markdown(
        f"From {files}; the docstrings are in [the API](../api.md).\n\n```python\n{listing}\n```"
    )


def _owner(each: type | Callable[..., object]) -> str:
    """A comment with the class that defines a method; two losses' methods have the same name."""
    owner = each.__qualname__.rpartition(".")[0]
    return f"# {owner}\n" if owner else ""


def _without_docstrings(source: str) -> str:
    source = textwrap.dedent(source).rstrip()
    lines = source.splitlines()
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            text = node.body[0]
            for number in range(text.lineno - 1, text.end_lineno or text.lineno):
                lines[number] = "\0"
    kept = "\n".join(line for line in lines if line != "\0")
    # the empty line that stood below a docstring
    return kept.replace(":\n\n", ":\n")


def shares(
    names: Sequence[str],
    fractions: Sequence[float] = (0.1, 0.01, 0.001),
    *,
    probs: Sequence[float] = (0.5,),
    pixels: int = 10_000,
) -> pd.DataFrame:
    """The foreground's share of the gradient at a constant answer, from the closed forms.

    Args:
        names: losses of `lossatlas.theory.atlas.SHARE_FORMS`.
        fractions: foreground fractions π, a column each.
        probs: the constant answers, a row for each with each loss.
        pixels: pixels of the image.
    """
    rows = []
    for name in names:
        for prob in probs:
            values = {
                f"π = {100 * part:g} %": f"{100 * float(share_values(name, part, prob, pixels)):.1f} %"
                for part in fractions
            }
            rows.append({"loss": f"`{name}`", "answer p": prob, **values})
    return pd.DataFrame(rows)


def trained(names: Sequence[str], records: str | Path = _STUDY) -> Markdown:
    """How the losses of a family did in the study `begin` with a sound last layer, and which were not trained.

    One row a loss and foreground fraction, one number a cell: medians over the runs. Below it the losses that only
    other records have, and those that none has.

    Args:
        names: losses of the family.
        records: folder of the study's records; the folders beside it hold the other studies'.
    """
    runs = pd.read_parquet(Path(records) / "runs.parquet")
    runs = runs[(runs.model == _LAYER) & runs.loss.isin(list(names))]
    absent = [name for name in names if name not in set(runs.loss)]
    studies = _studies_of(absent, Path(records).parent)
    untrained = [f"`{name}`" for name in absent if name not in studies]
    if not runs.empty:
        paragraphs = [markdown_table(_medians(runs)), _BELOW]
    elif studies:
        paragraphs = []
    else:
        paragraphs = [
            "**Open.** No study here has trained a loss of this family. `lossatlas run` with your own "
            "[study](../rerun.md) would tell."
        ]
    if studies:
        found = ", ".join(f"`{name}` ({', '.join(where)})" for name, where in studies.items())
        paragraphs.append(f"Trained in other records only: {found}.")
    if untrained:
        paragraphs.append(f"Not trained yet: {', '.join(untrained)}.")
    return show(*paragraphs)


def _medians(runs: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "loss": f"`{loss}`",
            "foreground": f"{100 * foreground:g} %",
            "Dice at ½": f"{part.foreground_dice.median():.3f}",
            "Dice, tuned": f"{part.foreground_dice_tuned.median():.3f}",
            "calibration error": f"{part.ece_foreground.median():.2f}".replace("nan", "–"),
            "begun": f"{int(part.began.sum())} of {len(part)}",
        }
        for (loss, foreground), part in runs.groupby(["loss", "foreground"], sort=False)
    ]
    return pd.DataFrame(rows)


def _studies_of(names: Sequence[str], results: Path) -> dict[str, list[str]]:
    """The studies that trained each of the losses; a loss that none trained is left out."""
    found: dict[str, list[str]] = {}
    for path in sorted(results.glob("*/runs.parquet")):
        known = set(pd.read_parquet(path, columns=["loss_name"]).loss_name)
        for name in names:
            if name in known:
                found.setdefault(name, []).append(f"`{path.parent.name}`")
    return found


def elsewhere(
    names: Sequence[str], record: str | Path = "results/conformance/conformance.json"
) -> Markdown:
    """What other libraries mean by losses of these names, where it is not what ours mean or is wrong.

    Args:
        names: losses as the page on other libraries titles them.
        record: measurements of ``benchmarks/conformance.py``.

    Raises:
        ValueError: the record knows none of the names.
    """
    found = json.loads(Path(record).read_text(encoding="utf-8"))
    rows = [
        {"loss": each["loss"], "library": each["library"], "what to know": each["because"]}
        for each in found["comparisons"]
        if each["verdict"] == "differs"
    ] + [
        {"loss": each["loss"], "library": each["library"], "what to know": f"**{_FAILS[each['property']]}**"}
        for each in found["findings"]
        if not each["holds"]
    ]  # fmt: skip
    known = {each["loss"] for each in found["comparisons"]}
    if not known & set(names):
        raise ValueError(f"expected some of {sorted(known)}, got {list(names)}")
    table = pd.DataFrame(rows)
    table = table[table.loss.isin(list(names)) & table.library.isin(list(_TITLES))]
    notes = table.groupby(["loss", "library"], sort=False)["what to know"].agg(
        lambda each: "; ".join(dict.fromkeys(each))
    )
    shown = notes.reset_index().sort_values(["loss", "library"], kind="stable")
    shown["library"] = shown.library.map(_TITLES)
    return Markdown(
        f"{markdown_table(shown)}\n\n*Measured, with versions and calls: "
        "[what libraries mean by Dice](../what_libraries_mean_by_dice.md).*"
    )
