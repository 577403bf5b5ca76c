"""Commands for people with data of their own: ``advise``, ``compare``, ``predict``, ``export``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parsers(commands: Any) -> None:
    """Add the commands to a parser's subcommands; a ``DataError`` of theirs is the caller's to print."""
    _add_advise(commands)
    _add_compare(commands)
    _add_predict(commands)
    _add_export(commands)
    table = commands.add_parser(
        "decisions", help="write the numbers of advise's decision table from the records"
    )
    table.set_defaults(run=_decisions)


def _add_advise(commands: Any) -> None:
    parser = commands.add_parser(
        "advise",
        help="advice for the masks of a folder: loss, threshold, sampling, bias, metrics",
        description="Measure the masks of a folder and say what the studies and the derivations advise.",
        epilog="examples: lossatlas advise my/folder --html advice.html; "
        "lossatlas advise first/masks --also second/masks --need probability --json",
    )
    parser.add_argument("root", help="a folder with masks/, or of masks alone")
    parser.add_argument(
        "--need",
        default="mask",
        choices=("mask", "probability", "boundary"),
        help="what the network is for (default: mask)",
    )
    parser.add_argument(
        "--also", action="append", default=[], metavar="FOLDER", help="another annotator's masks"
    )
    parser.add_argument("--ignore-index", type=int, help="value of void pixels in the masks")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write one page with pictures"
    )
    parser.set_defaults(run=_advise)


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="train several losses fairly on your own folder within a budget, and report",
        description="Plan within a budget, train, and write a page. The same command goes on where it stopped.",
        epilog="example: lossatlas compare my/folder --losses ce dice focal --budget 30m --out compared",
    )
    parser.add_argument("root", help="a folder with images/ and masks/")
    parser.add_argument("--losses", nargs="+", help="names (default: ce dice dice_ce)")
    parser.add_argument(
        "--budget", default="30m", help="time for all, as 90s, 30m, 2h (default: 30m)"
    )
    parser.add_argument(
        "--out", default="compared", help="folder of study, runs, page (default: compared)"
    )
    parser.add_argument(
        "--side",
        type=int,
        default=256,
        help="longer side of the images; 0: as they are (default: 256)",
    )
    parser.add_argument("--ignore-index", type=int, help="value of void pixels in the masks")
    parser.add_argument("--dry-run", action="store_true", help="measure and plan, train nothing")
    parser.add_argument("--json", action="store_true", help="machine-readable result")
    parser.set_defaults(run=_compare)


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="predict masks of new images with a trained network",
        description="Predict the masks of images, large ones by overlapping tiles.",
        epilog="example: lossatlas predict runs/2f1ad9dd7bfbb69d new/images --out masks",
    )
    parser.add_argument(
        "checkpoint", help="a run folder, its last.ckpt, or an exported .safetensors file"
    )
    parser.add_argument("images", help="an image, or a folder of images")
    parser.add_argument("--out", required=True, help="folder of the masks")
    parser.add_argument(
        "--rule", help="decision rule: tuned (default where there is one) or argmax"
    )
    parser.add_argument(
        "--tile", type=int, default=512, help="side of a tile; 0: whole (default: 512)"
    )
    parser.add_argument(
        "--overlap", type=int, help="pixels beyond a tile (default: as the network needs)"
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="also write probabilities, float16 .npy"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    parser.set_defaults(run=_predict)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write a trained network as ONNX or safetensors, with model.json beside it",
        epilog="example: lossatlas export runs/2f1ad9dd7bfbb69d --format onnx --out exported",
    )
    parser.add_argument("checkpoint", help="a run folder or its last.ckpt")
    parser.add_argument("--format", default="onnx", choices=("onnx", "safetensors"))
    parser.add_argument("--out", default="exported", help="folder (default: exported)")
    parser.add_argument("--rule", help="decision rule that model.json recommends (default: tuned)")
    parser.set_defaults(run=_export)


def _compare(given: argparse.Namespace) -> int:
    import contextlib
    import sys

    from lossatlas.advise import compare

    request = compare.Request(
        root=str(Path(given.root).expanduser().resolve()),
        losses=compare.parse_losses(given.losses or compare.LOSSES),
        budget_s=compare.budget_seconds(given.budget),
        side=given.side,
        ignore_index=given.ignore_index,
    )
    # with --json, standard output holds the result alone
    with contextlib.redirect_stdout(sys.stderr) if given.json else contextlib.nullcontext():
        found = compare.compare(request, given.out, dry_run=given.dry_run)
    if given.json:
        values = {k: str(v) if isinstance(v, Path) else v for k, v in vars(found).items()}
        print(json.dumps(values, indent=1, ensure_ascii=False))
    else:
        for line in found.failed:
            print(f"failed: {line}")
        print(found.page or found.study)
    return 1 if found.failed else 0


def _predict(given: argparse.Namespace) -> None:
    from lossatlas import deploy

    if given.tile < 0 or (given.overlap or 0) < 0:
        raise deploy.DeployError(
            "tile and overlap: expected 0 or more pixels, got a negative number"
        )
    deployed = deploy.load(given.checkpoint)
    name, rule = deployed.rule(given.rule)
    threshold = f", threshold {rule.probability:.3f}" if len(rule.offsets) == 1 else ""
    print(f"decision rule: {name}{threshold}")
    count = deploy.predict_folder(
        deployed,
        given.images,
        given.out,
        rule=given.rule,
        probabilities=given.probabilities,
        say=print,
        tile=given.tile,
        overlap=given.overlap,
        device=given.device,
    )
    print(f"{count} masks in {given.out}; masks that were there are kept")


def _export(given: argparse.Namespace) -> None:
    from lossatlas import deploy

    file, checked = deploy.export(
        deploy.load(given.checkpoint), given.out, format=given.format, rule=given.rule
    )
    print(f"{file}; {checked}")


def _advise(given: argparse.Namespace) -> None:
    from lossatlas.advise import advise
    from lossatlas.advise.advice import describe
    from lossatlas.advise.facts import read_masks

    advice = advise(given.root, need=given.need, also=given.also, ignore_index=given.ignore_index)
    if given.html is not None:
        from lossatlas.advise.page import write_page

        write_page(given.html, advice, read_masks(given.root, ignore_index=given.ignore_index))
    if given.json:
        print(json.dumps(advice, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(describe(advice))
        if given.html is not None:
            print(f"\n{given.html}")


def _decisions(given: argparse.Namespace) -> None:
    from lossatlas.advise import evidence
    from lossatlas.pipeline import require_checkout

    require_checkout()
    print(evidence.rewrite(Path("src/lossatlas/advise/decisions.yaml")))
