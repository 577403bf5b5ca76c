"""The numbers and the figure of the front page, read from the records of the study `begin`.

The sentences stand in ``book/intro.md`` and its translations; they name a number as ``{{ begin.… }}``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lossatlas.report import style
from lossatlas.report.records import Records, load
from lossatlas.report.scores import Scores
from lossatlas.statistics.intervals import number
from lossatlas.statistics.paired import Difference

#: The two last layers that the front page compares: the withdrawn one, and one that can answer.
HEADS = {"gated": "relu4_zero", "open": "none4_prior"}
#: One change each to the withdrawn head: no activation, or the prior bias.
CURES = ("none4_zero", "relu4_prior")
#: Data set of the front page (3 % foreground), and the one that it leaves undecided (0.1 %).
PLACE, RARE = "pi3", "pi01"
#: At 0.1 % with the prior bias: the last layer without activation, and the ReLU behind sixteen channels; the losses
#: whose trainings are counted there.
RARE_HEADS = {"open": "none4_prior", "relu16": "relu16_prior"}
RARE_LOSSES = {"open": ("ce", "focal", "dice", "tversky"), "relu16": ("dice", "tversky")}
#: The figure's words; a language without a font here takes the English ones.
WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "gated": "ReLU, 4 channels, bias 0",
        "open": "no activation, prior bias",
        "points": ["CE\nat ½", "CE at its\nthreshold", "Dice\nat ½"],
        "axis": "test Dice",
        "note": "{lost} of {seeds}:\nnothing at ½",
    },
    "es": {
        "gated": "ReLU, 4 canales, sesgo 0",
        "open": "sin activación, sesgo a priori",
        "points": ["EC\nen ½", "EC con su\numbral", "Dice\nen ½"],
        "axis": "Dice de prueba",
        "note": "{lost} de {seeds}:\nnada en ½",
    },
    "fr": {
        "gated": "ReLU, 4 canaux, biais 0",
        "open": "sans activation, biais a priori",
        "points": ["EC\nà ½", "EC à son\nseuil", "Dice\nà ½"],
        "axis": "Dice de test",
        "note": "{lost} sur {seeds} :\nrien à ½",
    },
}


class FrontError(ValueError):
    """The records no longer support a sentence of the front page: says which."""


def numbers(records: str | Path) -> dict[str, Any]:
    """Every number of the front page as text, nested as the pages name them.

    Args:
        records: folder of the records of the study `begin`.

    Returns:
        how many ``runs``, ``planned`` and ``seeds``; for each last layer of `HEADS` the losses' counts, and Dice
        minus cross-entropy; how many trainings find something without the activation; and how
        many of Lovász-softmax began at 0.1 %, behind all last layers together.

    Raises:
        FrontError: a sentence of the page would be false.
    """
    study = load(records)
    runs = study.runs
    found: dict[str, Any] = {
        "runs": str(len(runs)),
        "planned": str(len(runs) + study.missing_runs),
        "rare_with_prior": {},
    }
    margin = float(study.study["smallest_effect"])
    for name, model in HEADS.items():
        here = runs[runs.model == model]
        dice = here[(here.dataset == PLACE) & (here.loss == "dice")].foreground_dice.median()
        found[name] = {
            loss: _counts(part, dice - margin)
            for loss, part in here[here.dataset == PLACE].groupby("loss")
        }
    cured = runs[(runs.model == CURES[0]) & (runs.dataset == PLACE) & (runs.loss == "ce")]
    found["no_activation"] = {
        "trainings": str(len(cured)),
        "found": str((cured.foreground_dice > 0).sum()),
    }
    found["seeds"] = found["open"]["ce"]["trainings"]
    found["open"]["gap_tuned"] = number(difference(study, HEADS["open"]).estimate, sign=True)
    found["open"]["rare"] = {"dice_minus_ce_tuned": _rare(study).text(n=False)}
    for name in RARE_HEADS:
        found["rare_with_prior"][name] = _begun(_rare_began(study, name))
    found["rare_lovasz"] = _begun(_rare_lovasz(study))
    _require(study)
    return found


def ten_classes(records: str | Path) -> dict[str, str]:
    """By network, Dice minus cross-entropy with ten classes, at thresholds of validation, as text: the study `quick`.

    Raises:
        FrontError: Dice is not ahead, as the front page and the decision guide say.
    """
    study = load(records, "quick")
    found = {part.model: difference(study, part.model, part.dataset) for part in study.parts}
    holds = found["segnet"].low > 0 and all(each.estimate >= 0 for each in found.values())
    got = [each.text() for each in found.values()]
    pages = "book/intro.md, book/decision_guide.md"
    stands(study.folder, "Dice is ahead with ten classes", holds, got, pages)
    return {model: each.text(n=False) for model, each in found.items()}


def _rare(study: Records) -> Difference:
    return difference(study, HEADS["open"], RARE)


def _rare_began(study: Records, name: str) -> pd.Series:
    """Which trainings at 0.1 % with the prior bias began, behind one of `RARE_HEADS`."""
    runs = study.runs
    here = (runs.dataset == RARE) & (runs.model == RARE_HEADS[name])
    return runs[here & runs.loss.isin(RARE_LOSSES[name])].began.astype(bool)


def _rare_lovasz(study: Records) -> pd.Series:
    """Which trainings of Lovász-softmax at 0.1 % began, behind all last layers together."""
    here = (study.runs.dataset == RARE) & (study.runs.loss == "lovasz_softmax")
    return study.runs[here].began.astype(bool)


def _begun(began: pd.Series) -> dict[str, str]:
    return {"began": str(int(began.sum())), "trainings": str(len(began))}


def difference(study: Records, model: str, place: str = PLACE) -> Difference:
    """Dice minus cross-entropy at thresholds of validation, at one place under one last layer, paired."""
    (part,) = (each for each in study.parts if (each.dataset, each.model) == (place, model))
    found = Scores(part, "tuned").difference("dice", "ce")
    assert found is not None, part.dataset  # three seeds and more
    return found


def seeds_table(records: str | Path) -> pd.DataFrame:
    """A row for each last layer of `HEADS` and seed: Dice of cross-entropy and of Dice, at ½ and at their thresholds.

    Columns: ``head``, ``seed``, ``ce at ½``, ``ce tuned``, ``dice`` (at ½), ``dice tuned``; test Dice at 3 %
    foreground.
    """
    runs = pd.read_parquet(Path(records) / "runs.parquet")
    runs = runs[runs.dataset == PLACE]
    rows = [of_seeds(head, runs[runs.model == model]) for head, model in HEADS.items()]
    return pd.concat(rows, ignore_index=True)


def of_seeds(head: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`seeds_table` under one ``head``: the seeds that both losses have among ``runs``."""
    of = {loss: part.set_index("seed") for loss, part in runs.groupby("loss")}
    shared = of["ce"].index.intersection(of["dice"].index)
    return pd.DataFrame(
        {
            "head": head,
            "seed": shared,
            "ce at ½": of["ce"].loc[shared, "foreground_dice"].to_numpy(),
            "ce tuned": of["ce"].loc[shared, "foreground_dice_tuned"].to_numpy(),
            "dice": of["dice"].loc[shared, "foreground_dice"].to_numpy(),
            "dice tuned": of["dice"].loc[shared, "foreground_dice_tuned"].to_numpy(),
        }
    )


#: Metrics of the table of results, each with its columns by threshold rule; "–": none is needed.
METRICS = {
    "Dice": {"½": "foreground_dice", "validation": "foreground_dice_tuned", "best": "oracle_dice"},
    "IoU": {"½": "foreground_iou", "validation": "foreground_iou_tuned"},
    "calibration error": {"–": "ece_foreground"},
    "NLL": {"–": "nll"},
}


def results_table(studies: Sequence[str | Path]) -> pd.DataFrame:
    """Every cell of some studies: a row for each data set, network, loss, metric and threshold rule, one number a cell.

    Args:
        studies: folders of their records; one that is missing is passed over.

    Returns:
        Columns ``study``, ``data``, ``network``, ``loss``, ``metric``, ``threshold``; ``median``, ``min`` and ``max``
        over the runs as text; how many ``began``, and ``runs``.
    """
    parts = []
    for folder in (Path(study) for study in studies):
        if not (folder / "runs.parquet").is_file():
            continue
        runs = pd.read_parquet(folder / "runs.parquet")
        runs = runs.assign(study=folder.name, data=runs.dataset, network=runs.model)
        if "head" in runs:  # the study whose networks differ in their last layer
            activation = runs["head"].map(
                {"relu": "ReLU", "leaky_relu": "leaky ReLU", "none": "none"}
            )
            bias = runs.bias.map({"zero": "bias 0", "prior": "prior bias"})
            channels = runs.channels.astype(str)
            runs["network"] = "U-Net, " + activation + ", " + channels + " channels, " + bias
            runs["data"] = (100 * runs.foreground).map("digits, {:g} %".format)
        cells = runs.groupby(["study", "data", "network", "loss"], sort=False)
        began = cells.began.sum().astype(int)
        for metric, columns in METRICS.items():
            for rule, column in columns.items():
                found = cells[column].agg(["median", "min", "max", "size"])
                parts.append(found.assign(began=began, metric=metric, threshold=rule).reset_index())
    table = pd.concat(parts).rename(columns={"size": "runs"})
    shown = ["median", "min", "max"]
    table[shown] = table[shown].map(lambda value: "–" if pd.isna(value) else f"{value:.3f}")
    first = ["study", "data", "network", "loss", "metric", "threshold"]
    return table[[*first, "median", "min", "max", "began", "runs"]]


def figure(
    table: pd.DataFrame,
    language: str = "en",
    *,
    dark: bool = False,
    titles: Mapping[str, str] | None = None,
) -> Figure:
    """A line a seed: cross-entropy at ½ → at its threshold → Dice, a panel for each last layer, in nearly full rows.

    Args:
        table: as `seeds_table` makes it.
        language: a key of `WORDS`.
        dark: light ink, for a dark page.
        titles: of the panels, by what stands in the column ``head``; None takes those of the last layers.
    """
    words, ink = WORDS[language], "#E8E8E8" if dark else "#1A1A1A"
    style.set_theme()
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = dict.fromkeys(inked, ink)
    settings |= {"grid.color": "#555555" if dark else "#DDDDDD", "axes.facecolor": "none"}
    dice = "#FF8A3D" if dark else style.loss_colour("dice")
    # a backend that is loaded within the context would lose its interactive mode behind it: a notebook shows no figure
    plt.switch_backend(mpl.get_backend())
    with mpl.rc_context(settings):
        panels = list(table.groupby("head", sort=False))
        wide = {4: 2, 7: 4, 8: 4}.get(len(panels), min(3, len(panels)))
        high = -(-len(panels) // wide)
        size = ({1: 5.7, 2: 5.7, 3: 7.2, 4: 9.4}[wide], 3.2 if high == 1 else 2.7 * high)
        drawn, grid = plt.subplots(
            high, wide, figsize=size, sharey=True, constrained_layout=True, squeeze=False
        )
        drawn.patch.set_alpha(0)
        for axis in grid.flat[len(panels) :]:
            axis.remove()
        for axis, (head, rows) in zip(grid.flat, panels, strict=False):
            seeds = len(rows)
            places = np.arange(3)[:, None] + np.linspace(-0.09, 0.09, seeds)  # seeds side by side
            values = rows[["ce at ½", "ce tuned", "dice"]].to_numpy().T  # (3, seeds)
            lost = values[0] == 0
            axis.plot(places[:, ~lost], values[:, ~lost], color=ink, lw=1, alpha=0.4, zorder=1)
            axis.plot(places[:, lost], values[:, lost], color=ink, lw=2, zorder=1)
            for place, colour, shape in ((0, ink, "o"), (1, ink, "o"), (2, dice, "s")):
                face = "none" if place == 0 else colour
                axis.scatter(
                    places[place], values[place], 30, face, shape, edgecolors=colour, zorder=2
                )
            if lost.any():
                axis.text(1.28, 0.17, words["note"].format(lost=lost.sum(), seeds=seeds), va="top")
            axis.set_xticks(range(3), words["points"])
            title = words[str(head)] if titles is None else titles.get(str(head), str(head))
            axis.set(title=title, xlim=(-0.35, 2.35), ylim=(-0.04, 1))
        for axis in grid[:, 0]:
            axis.set_ylabel(words["axis"])
    return drawn


def files(records: str | Path, folder: str | Path, studies: Sequence[str | Path]) -> dict[str, str]:
    """The table of results, and the figure in every language, light and dark, as text by path.

    Args:
        records: of the study `begin`, for the figure.
        folder: where the files are to be.
        studies: folders of the records that the table shows.

    Nothing is written here: the caller writes what differs, so that unchanged pages are not built again.
    """
    folder = Path(folder)
    made = {str(folder / "results.md"): embedded(results_table(studies))}
    return made | figures(seeds_table(records), folder / "seeds")


#: The library that the table of results uses; the build of the book puts it there.
_DATATABLES = (
    '<link rel="stylesheet" href="_static/datatables/datatables.css">\n'
    '<script src="_static/datatables/datatables.js"></script>'
)


def embedded(table: pd.DataFrame) -> str:
    """A table of results as MyST Markdown: HTML, and the library that sorts and searches it."""
    html = table.to_html(index=False, border=0, classes="results")
    return f'```{{raw}} html\n{_DATATABLES}\n<div class="results-table">\n{html}\n</div>\n```\n'


def figures(
    table: pd.DataFrame,
    stem: Path,
    titles: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, str]:
    """:func:`figure` in every language, light and dark, as SVG by path: ``<stem>_en_light.svg`` and so on.

    Args:
        table: as :func:`seeds_table` makes it.
        stem: where the paths begin.
        titles: of the panels, by language; None takes those of the last layers.
    """
    made = {}
    for language in WORDS:
        named = None if titles is None else titles[language]
        for shade in ("light", "dark"):
            drawn, text = figure(table, language, dark=shade == "dark", titles=named), io.StringIO()
            drawn.savefig(text, format="svg", metadata={"Date": None})
            plt.close(drawn)
            made[f"{stem}_{language}_{shade}.svg"] = text.getvalue()
    return made


def _counts(runs: pd.DataFrame, level: float) -> dict[str, str]:
    """Of the trainings that find nothing at ½, `rescued` are those whose threshold brings them to `level`."""
    dead = runs[runs.foreground_dice == 0]
    return {
        "trainings": str(len(runs)),
        "began": str(int(runs.began.sum())),
        "nothing_at_half": str(len(dead)),
        "rescued": str(int((dead.foreground_dice_tuned >= level).sum())),
    }


def stands(
    where: object, sentence: str, holds: object, got: object = None, correct: str = "book/intro.md"
) -> None:
    """Stop the build where a sentence of the book no longer follows from the records.

    Args:
        where: the records.
        sentence: of the front page or of the page that `correct` names.
        holds: whether they bear it out.
        got: what they hold: a text, or a value.
        correct: the pages that have the sentence.

    Raises:
        FrontError: they do not.
    """
    if not holds:
        came = "" if got is None else f": {got}" if isinstance(got, str) else f": got {got}"
        raise FrontError(
            f"{where}: the records contradict the book, which says that {sentence}{came}. Correct {correct} and its "
            "translations"
        )


def _require(study: Records) -> None:
    """What the sentences of the page rest on; a record that contradicts one stops the build."""
    # a group-by has an attribute "keys", so dict() would take it for a mapping
    of = dict(iter(study.runs[study.runs.dataset == PLACE].groupby(["model", "loss"])))
    gated, answering = ((of[HEADS[name], "ce"], of[HEADS[name], "dice"]) for name in HEADS)
    margin = float(study.study["smallest_effect"])
    rare = _rare(study)
    sentences = {
        "with a last layer that can answer the tuned losses differ by less than the smallest effect": (
            abs(difference(study, HEADS["open"]).estimate) < margin
        ),
        "with a last layer that can answer every training begins": all(
            runs.began.all() and (runs.foreground_dice > 0).all() for runs in answering
        ),
        "behind the ReLU some trainings of cross-entropy find nothing at ½, and none of Dice": (
            (gated[0].foreground_dice == 0).any() and (gated[1].foreground_dice > 0).all()
        ),
        "either change lets every training of cross-entropy find something at ½": all(
            (of[model, "ce"].foreground_dice > 0).all() for model in CURES
        ),
        "of these some come back at their threshold": (
            gated[0][gated[0].foreground_dice == 0].foreground_dice_tuned.max() > 0.5
        ),
        "cross-entropy's probabilities on the foreground are better calibrated": (
            answering[0].ece_foreground.median() < answering[1].ece_foreground.median()
        ),
        "at 0.1 % eight seeds do not settle cross-entropy or Dice": (rare.low < 0 < rare.high),
        "at 0.1 % with the prior bias and no activation every training of four losses begins": (
            _rare_began(study, "open").all()
        ),
        "at 0.1 % behind a ReLU with sixteen channels half of the overlap losses' trainings do not begin": (
            _rare_began(study, "relu16").mean() < 0.5
        ),
        "behind the ReLU more than one training of Lovász-softmax does not begin": (
            (~of[HEADS["gated"], "lovasz_softmax"].began.astype(bool)).sum() > 1
        ),
        "at 0.1 % Lovász-softmax hardly ever begins": _rare_lovasz(study).mean() < 0.05,
        "behind a leaky ReLU with bias 0 one training of cross-entropy finds nothing": (
            (of["leaky_relu4_zero", "ce"].foreground_dice == 0).sum() == 1
        ),
    }
    wrong = [sentence for sentence, holds in sentences.items() if not holds]
    if wrong:
        raise FrontError(
            f"{study.folder}: the records contradict the front page, which says: {'; '.join(wrong)}. "
            "Correct book/intro.md and its translations, then the check in lossatlas.report.front"
        )
