"""Commands for people with data of their own: ``advise``, ``compare``, ``predict``, ``export``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import click


def examples(*lines: str) -> str:
    """The end of a command's help: lines that a person could type."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


class _ManyLosses(click.Command):
    """Takes ``--losses ce dice`` as well as ``--losses ce --losses dice``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        after, root = "", _root(args)
        for place, each in enumerate(args):
            if place == root:
                after = ""
            if after == "names" and not each.startswith("-"):
                spread.append("--losses")
            after = "names" if after == "option" and not each.startswith("-") else after
            after = "option" if each == "--losses" else "" if each.startswith("-") else after
            spread.append(each)
        return super().parse_args(ctx, spread)


def _root(args: list[str]) -> int | None:
    """Place of the folder among the arguments: before the losses, else the last one that is there."""
    valued = ("--budget", "--out", "--side", "--ignore-index")
    folders = [
        place
        for place, each in enumerate(args)
        if not each.startswith("-")
        and (place == 0 or args[place - 1] not in valued)
        and os.path.isdir(os.path.expanduser(each))
    ]
    names = args.index("--losses") if "--losses" in args else len(args)
    before = [place for place in folders if place < names]
    found = before or folders
    return found[-1] if found else None


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
_void = click.option("--ignore-index", type=int, help="Value of void pixels in the masks.")


@click.command(
    epilog=examples(
        "lossatlas advise my/folder --html advice.html",
        "lossatlas advise first/masks --also second/masks --need probability --json",
    )
)
@click.argument("root")
@click.option(
    "--need",
    default="mask",
    show_default=True,
    type=click.Choice(("mask", "probability", "boundary")),
    help="What the network is for.",
)
@click.option("--also", multiple=True, metavar="FOLDER", help="Another annotator's masks.")
@_void
@json_option
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write a page with pictures.",
)
def advise(
    root: str,
    need: str,
    also: tuple[str, ...],
    ignore_index: int | None,
    as_json: bool,
    html: Path | None,
) -> None:
    """Measure masks; advise loss, threshold and metrics.

    The advice is what the studies and the derivations say of masks like these.

    ROOT is a folder with masks/, or a folder of masks alone.
    """
    from lossatlas.advise import advise as advice_for
    from lossatlas.advise.advice import describe
    from lossatlas.advise.facts import read_masks

    if html is not None and (not html.parent.is_dir() or html.is_dir()):
        raise click.BadParameter(
            f"expected a file in a folder that is there, got {html}", param_hint="--html"
        )
    if html is not None and (html.is_file() or not html.exists()):
        require_writable("page", html.parent, "--html")
    advice = advice_for(root, need=need, also=list(also), ignore_index=ignore_index)
    if html is not None:
        from lossatlas.advise.page import write_page

        write_page(html, advice, read_masks(root, ignore_index=ignore_index))
    if as_json:
        print(json.dumps(advice, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(describe(advice))
        if html is not None:
            print(f"\n{html}")


@click.command(
    cls=_ManyLosses,
    epilog=examples(
        "lossatlas compare my/folder --losses ce dice focal --budget 30m --out compared",
        "lossatlas compare my/folder --losses ce dice:squared=true tversky:alpha=0.3:beta=0.7",
        "lossatlas compare my/folder --dry-run",
    ),
)
@click.argument("root")
@click.option(
    "--losses",
    multiple=True,
    metavar="NAMES",
    help="Losses, as dice or dice:squared=true (default: ce dice dice_ce).",
)
@click.option("--budget", default="30m", show_default=True, help="Time for all, as 90s, 30m or 2h.")
@click.option(
    "--out", default="compared", show_default=True, help="Folder of study, runs and page."
)
@click.option(
    "--side",
    type=click.IntRange(min=0),
    default=256,
    show_default=True,
    help="Longer side of the images in pixels; 0: as they are.",
)
@_void
@click.option("--dry-run", is_flag=True, help="Measure and plan; train nothing.")
@json_option
def compare(
    root: str,
    losses: tuple[str, ...],
    budget: str,
    out: str,
    side: int,
    ignore_index: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Compare losses on your own folder within a budget.

    Plans, trains every loss alike, and writes a report page.

    ROOT is a folder with images/ and masks/. The same command goes on where it stopped.
    """
    from lossatlas.advise import compare as comparing
    from lossatlas.data import checks

    request = comparing.Request(
        root=str(checks.folder("root", root).resolve()),
        losses=comparing.parse_losses(losses or comparing.LOSSES),
        budget_s=comparing.budget_seconds(budget),
        side=side,
        ignore_index=ignore_index,
    )
    if not dry_run:
        require_writable("comparison", out, "--out")
    with result_alone(as_json):
        found = comparing.compare(request, out, dry_run=dry_run)
    if as_json:
        print_json(vars(found))
    else:
        for line in found.failed:
            print(f"failed: {line}")
        print(found.page or (found.plan if dry_run else found.study))
    return 1 if found.failed else 0


@click.command(
    epilog=examples(
        "lossatlas predict runs/2f1ad9dd7bfbb69d new/images --out masks",
        "lossatlas predict exported/model.safetensors photo.tif --out masks --tile 1024",
    )
)
@click.argument("checkpoint")
@click.argument("images")
@click.option("--out", required=True, help="Folder of the masks.")
@click.option("--rule", help="Decision rule: tuned (default where there is one) or argmax.")
@click.option(
    "--tile",
    type=click.IntRange(min=0),
    default=512,
    show_default=True,
    help="Side of a tile in pixels; 0: the whole image at once.",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    help="Pixels beyond a tile (default: as the network needs).",
)
@click.option("--probabilities", is_flag=True, help="Also write probabilities, float16 .npy.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or mps.")
@click.option("--dry-run", is_flag=True, help="Name the masks that would be written; write none.")
@json_option
def predict(
    checkpoint: str,
    images: str,
    out: str,
    rule: str | None,
    tile: int,
    overlap: int | None,
    probabilities: bool,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Predict the masks of images, large ones by overlapping tiles.

    CHECKPOINT is a run folder, its last.ckpt, or an exported .safetensors file; IMAGES an image or a
    folder of images. Masks of the same network, rule and image that are there already are kept.
    """
    from lossatlas import deploy
    from lossatlas.deploy.predict import is_written, refuse_others

    with result_alone(as_json):
        deployed = deploy.load(checkpoint)
        name, decision = deployed.rule(rule)
        planned = deploy.masks_to_write(images, out, probabilities=probabilities)
        if planned and not dry_run:
            require_writable("masks", out, "--out")
        refuse_others(deployed, images, out, rule)
        threshold = f", threshold {decision.probability:.3f}" if len(decision.offsets) == 1 else ""
        print(f"decision rule: {name}{threshold}")
        if dry_run:
            for mask in planned.values():
                print(mask)
            count = 0
        else:
            again = sum(is_written(mask, probabilities) for mask in planned.values())
            count = deploy.predict_folder(
                deployed,
                images,
                out,
                rule=rule,
                probabilities=probabilities,
                masks=planned,
                tile=tile,
                overlap=overlap,
                device=device,
            )
            anew = f", {again} of them anew: their image is another one now" if again else ""
            print(f"{count} masks in {out}{anew}; masks that were there are kept")
    if as_json:
        print_json({"rule": name, "written": count, "masks": list(planned.values())})


@click.command(
    epilog=examples("lossatlas export runs/2f1ad9dd7bfbb69d --format onnx --out exported")
)
@click.argument("checkpoint")
@click.option(
    "--format",
    "kind",
    default="onnx",
    show_default=True,
    type=click.Choice(("onnx", "safetensors")),
)
@click.option("--out", default="exported", show_default=True, help="Folder of the files.")
@click.option("--rule", help="Decision rule that model.json recommends (default: tuned).")
@click.option("--dry-run", is_flag=True, help="Say which files would be written; write none.")
@json_option
def export(
    checkpoint: str, kind: str, out: str, rule: str | None, dry_run: bool, as_json: bool
) -> None:
    """Write a trained network as ONNX or safetensors.

    CHECKPOINT is a run folder or its last.ckpt. model.json beside it holds preprocessing and
    tuned threshold.
    """
    from lossatlas import deploy
    from lossatlas.deploy.export import refuse_another

    if not dry_run:
        require_writable("network", out, "--out")
    with result_alone(as_json):
        deployed = deploy.load(checkpoint)
        deployed.rule(rule)  # an unknown one is said now
        refuse_another(deployed, out)
        if dry_run:
            file, checked = Path(out) / f"model.{kind}", None
        else:
            file, checked = deploy.export(deployed, out, format=kind, rule=rule)
    if as_json:
        print_json({"file": file, "checked": checked, "written": not dry_run})
    else:
        print(f"{file}; {checked or 'not written, nor model.json beside it'}")


@click.command()
def decisions() -> None:
    """Write the numbers of the decision table from records."""
    from lossatlas.advise import evidence
    from lossatlas.workflow import require_checkout

    require_checkout()
    print(evidence.rewrite(Path("src/lossatlas/advise/decisions.yaml")))


def require_writable(part: str, folder: str | Path, option: str) -> None:
    """Refuse a folder that cannot be written to, before any work is done for it.

    Args:
        part: what will be written, as the message begins.
        folder: where; one that is not there yet is judged by the nearest one above it that is.
        option: the option that names another.

    Raises:
        DataError: the folder cannot be written to, or is a file.
    """
    from lossatlas.data.errors import require_writable as require

    require(part, folder, f"or name another place with {option}")


def result_alone(as_json: bool) -> contextlib.AbstractContextManager[Any]:
    """With ``--json`` standard output holds the result alone; what is said goes to standard error."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def print_json(value: Any) -> None:
    """A result for another program."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


COMMANDS = (advise, compare, predict, export, decisions)
