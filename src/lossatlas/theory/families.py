"""What a chapter on a family of losses shows beside its formulas: the code, the records, other libraries.

Nothing here is typed from a result: the code is read from the package, the numbers from ``results/``.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from lossatlas.theory.atlas import share_values
from lossatlas.theory.printing import markdown_table

#: The last layer that can answer, and the study that trained with it.
_LAYER, _STUDY = "none4_prior", "results/begin"
_TITLES = {"smp": "segmentation_models_pytorch", "monai": "MONAI", "kornia": "kornia"}
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


def code(*objects: type | Callable[..., object]) -> Markdown:
    """The source of classes or functions without their docstrings, as a listing.

    Args:
        objects: classes, methods or functions of the package; each is read when the page is made.
    """
    where = {Path(inspect.getsourcefile(each) or "").name for each in objects}
    listing = "\n\n".join(_without_docstrings(inspect.getsource(each)) for each in objects)
    files = ", ".join(f"`lossatlas/losses/{name}`" for name in sorted(where))
    return Markdown(
        f"From {files}; the docstrings are in [the API](../api.md).\n\n```python\n{listing}\n```"
    )


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
    """How the losses of a family did in the study `begin` with a sound last layer, or that none was trained.

    One row a loss and foreground fraction, one number a cell: medians over the runs.

    Args:
        names: losses of the family.
        records: folder of the study's records.
    """
    runs = pd.read_parquet(Path(records) / "runs.parquet")
    runs = runs[(runs.model == _LAYER) & runs.loss.isin(list(names))]
    if runs.empty:
        return Markdown(
            "**Open.** No published study has trained a loss of this family. `lossatlas run` with your own "
            "[study](../rerun.md) would tell."
        )
    rows = [
        {
            "loss": f"`{loss}`",
            "foreground": f"{100 * foreground:g} %",
            "Dice at ½": f"{part.foreground_dice.median():.3f}",
            "Dice, tuned": f"{part.foreground_dice_tuned.median():.3f}",
            "calibration error": _rounded(part.ece_foreground.median()),
            "begun": f"{int(part.began.sum())} of {len(part)}",
        }
        for (loss, foreground), part in runs.groupby(["loss", "foreground"], sort=False)
    ]
    below = (
        "*Medians over seeds on the test images: no activation before the last layer, prior bias, small U-Net, drawn "
        "digits. The calibration error is that of the foreground's pixels. Study [`begin`](studies/begin.ipynb).*"
    )
    return Markdown(f"{markdown_table(pd.DataFrame(rows))}\n\n{below}")


def _rounded(value: float) -> str:
    """Two digits, or a dash for a measure that the runs do not have."""
    return "–" if math.isnan(value) else f"{value:.2f}"


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
