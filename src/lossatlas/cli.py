"""The command line: a thin face over the package.

``lossatlas --help`` lists the commands; each says what it needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lossatlas.commands import add_parsers


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse ``arguments`` (those of the process by default) and run the command; the exit status."""
    parser = argparse.ArgumentParser(prog="lossatlas", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    book = commands.add_parser(
        "book", help="run a study and build the book (what `make book` does)"
    )
    book.add_argument(
        "--study", default="quick", help="a study, or the path of its file (default: quick)"
    )
    book.add_argument("--jobs", type=int, help="notebooks at a time (default: one for each core)")
    book.set_defaults(run=_book)

    plan = commands.add_parser("plan", help="a study's runs, which are there, what the rest costs")
    _add_study(plan)
    plan.add_argument(
        "--jobs", type=int, help="jobs at a time in the estimate (default: one for each core)"
    )
    plan.set_defaults(run=_plan)

    run = commands.add_parser("run", help="train what a study lacks, then collect its records")
    _add_study(run)
    _add_engine(run)
    run.add_argument("--fresh", action="store_true", help="train all anew, also what is there")
    run.add_argument(
        "--stale",
        action="store_true",
        help="train those anew whose code has changed since; where that is the evaluation's alone, judge them anew",
    )
    _add_mixed(run)
    run.set_defaults(run=_run)

    status = commands.add_parser("status", help="how far a study is, and what failed and why")
    _add_study(status)
    status.add_argument(
        "--strict", action="store_true", help="exit with 1 unless every run is there"
    )
    status.set_defaults(run=_status)

    retry = commands.add_parser("retry", help="try a study's failed or diverged runs again")
    _add_study(retry)
    _add_engine(retry)
    retry.add_argument("--failed", action="store_true", help="runs whose training raised an error")
    retry.add_argument("--diverged", action="store_true", help="runs that are recorded as diverged")
    _add_mixed(retry)
    retry.set_defaults(run=_retry)

    train = commands.add_parser(
        "train", help="train the runs of one job of a study (what the workflow types)"
    )
    _add_study(train)
    train.add_argument("job")
    train.add_argument("--accelerator", default="auto", help="auto, cpu, cuda or mps")
    train.set_defaults(run=_train)

    select = commands.add_parser(
        "select", help="choose each loss's learning rate from a study's tuning runs"
    )
    _add_study(select)
    select.set_defaults(run=_select)

    schema = commands.add_parser("schema", help="write the JSON schema of a study's file")
    schema.set_defaults(run=_schema)

    collect = commands.add_parser(
        "collect", help="gather a study's finished runs into results/STUDY"
    )
    _add_study(collect)
    _add_mixed(collect)
    collect.add_argument(
        "--fewer",
        action="store_true",
        help="replace records that have more runs than are there now",
    )
    collect.set_defaults(run=_collect)

    evaluate = commands.add_parser(
        "evaluate",
        help="judge a study's trained networks again by today's code; nothing is trained",
    )
    _add_study(evaluate)
    evaluate.add_argument("--accelerator", default="auto", help="auto, cpu, cuda or mps")
    evaluate.add_argument(
        "--everything", action="store_true", help="also the runs that today's code has judged"
    )
    evaluate.set_defaults(run=_evaluate)

    verdicts = commands.add_parser(
        "verdicts",
        help="settle the ledger's claims from a study's records: results/STUDY/verdicts.json",
    )
    verdicts.add_argument("study", help="a study whose records are there")
    verdicts.add_argument(
        "--results-dir", default="results", help="the folder of the records (default: results)"
    )
    verdicts.set_defaults(run=_verdicts)

    readme = commands.add_parser(
        "readme", help="write the README's answer and picture from the records of begin"
    )
    readme.set_defaults(run=_readme)

    # torch comes with the data package: seconds, which the workflow's own calls need not wait for
    if next(iter(sys.argv[1:] if arguments is None else arguments), "") == "data":
        from lossatlas.data.cli import add_parser as add_data_parser

        add_data_parser(commands, _weight_schemes())
    else:
        commands.add_parser("data", help="fetch, list, verify, find, check and describe data sets")

    losses = commands.add_parser("losses", help="list the losses and their parameters")
    losses.set_defaults(run=_losses)

    add_parsers(commands)
    given = parser.parse_args(arguments)
    return _reported(given)


def _weight_schemes() -> dict[str, Callable[[Any], Any]]:
    """The class weights that ``data stats`` prints: from (images, classes) counts as an array."""

    def of_array(name: str) -> Callable[[Any], Any]:
        def weights(counts: Any) -> Any:
            import torch

            from lossatlas.experiments.components import CLASS_WEIGHTS

            return CLASS_WEIGHTS[name](torch.from_numpy(counts))

        return weights

    names = ("inverse_frequency", "median_frequency", "median_frequency_dataset", "enet_log")
    return {name: of_array(name) for name in (*names, "effective_number")}


def _reported(given: argparse.Namespace) -> int:
    """Run the command; what a person did wrong, or could not know, is a line and not a traceback."""
    from lossatlas.experiments import ConfigError
    from lossatlas.pipeline import StageError

    try:
        return given.run(given) or 0
    except (ConfigError, StageError, FileNotFoundError) as error:
        print(f"lossatlas: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        from lossatlas.data import DataError

        if not isinstance(error, DataError):
            raise
        print(f"lossatlas: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "lossatlas: stopped; what is finished stays, the same command goes on", file=sys.stderr
        )
        return 130


def _book(given: argparse.Namespace) -> None:
    from lossatlas.pipeline import make_book

    make_book(given.study, jobs=given.jobs)


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="a study, or the path of a study's file")
    parser.add_argument(
        "--runs-dir", default="runs", help="the folder of the run folders (default: runs)"
    )
    parser.add_argument(
        "--results-dir", default="results", help="the folder of the records (default: results)"
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, help="jobs at a time (default: one for each core)")
    parser.add_argument(
        "--profile",
        default="workflow/profiles/local",
        help="Snakemake profile: where the jobs run (default: workflow/profiles/local)",
    )


def _add_mixed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mixed",
        action="store_true",
        help="take runs of different code together in the records, marked as such",
    )


def _plan(given: argparse.Namespace) -> None:
    from lossatlas.experiments import load_study, status

    study = load_study(given.study)
    runs = status.survey(study, given.runs_dir, given.results_dir)
    cost = status.estimate(study, runs, workers=given.jobs)
    print(status.describe_plan(study, runs, cost))


def _run(given: argparse.Namespace) -> int:
    from lossatlas.pipeline import require_checkout, run_study

    require_checkout()
    failed = run_study(
        given.study,
        jobs=given.jobs,
        runs_dir=given.runs_dir,
        results_dir=given.results_dir,
        fresh=given.fresh,
        stale=given.stale,
        profile=given.profile,
    )
    _collect(given)
    return 1 if failed else 0


def _status(given: argparse.Namespace) -> int:
    from lossatlas.experiments import load_study, status

    study = load_study(given.study)
    runs = status.survey(study, given.runs_dir, given.results_dir)
    print(status.describe_status(study, runs))
    return 1 if given.strict and status.needed(runs) else 0


def _retry(given: argparse.Namespace) -> int:
    from lossatlas.experiments import ConfigError
    from lossatlas.pipeline import require_checkout, retry

    require_checkout()
    states = {state for state in ("failed", "diverged") if getattr(given, state)}
    if not states:
        raise ConfigError("expected --failed, --diverged or both, got neither")
    failed = retry(
        given.study,
        states=states,
        jobs=given.jobs,
        runs_dir=given.runs_dir,
        results_dir=given.results_dir,
        profile=given.profile,
    )
    _collect(given)
    return 1 if failed else 0


def _train(given: argparse.Namespace) -> None:
    from lossatlas.experiments import load_study
    from lossatlas.experiments.jobs import train_job

    train_job(
        load_study(given.study),
        given.job,
        runs_dir=given.runs_dir,
        results_dir=given.results_dir,
        accelerator=given.accelerator,
    )


def _select(given: argparse.Namespace) -> None:
    from lossatlas.experiments import load_study
    from lossatlas.pipeline import select_rates

    select_rates(load_study(given.study), given.runs_dir, given.results_dir)


def _schema(given: argparse.Namespace) -> None:
    from lossatlas.experiments.study import SCHEMA_FILE, json_schema
    from lossatlas.pipeline import require_checkout

    require_checkout()
    SCHEMA_FILE.write_text(json_schema(), encoding="utf-8")
    print(SCHEMA_FILE)


def _collect(given: argparse.Namespace) -> None:
    from lossatlas.experiments import load_study
    from lossatlas.experiments.collect import collect
    from lossatlas.pipeline import require_checkout

    require_checkout()
    study = load_study(given.study)
    judged = (Path(given.results_dir) / study.study / "verdicts.json").is_file()
    folder = collect(
        study,
        runs_dir=given.runs_dir,
        results_dir=given.results_dir,
        file=given.study,
        mixed=given.mixed,
        fewer=getattr(given, "fewer", False),
    )
    print(folder)
    if judged and not (folder / "verdicts.json").is_file():
        print(
            f"the verdicts went with the records that they came from: lossatlas verdicts {study.study}"
        )


def _evaluate(given: argparse.Namespace) -> None:
    from lossatlas.experiments import load_study
    from lossatlas.experiments.reevaluate import reassess_study

    count = reassess_study(
        load_study(given.study),
        runs_dir=given.runs_dir,
        accelerator=given.accelerator,
        everything=given.everything,
    )
    if count:
        where = "" if given.runs_dir == "runs" else f" --runs-dir {given.runs_dir}"
        print(f"{count} runs evaluated; `lossatlas collect {given.study}{where}` takes them up")
    else:
        print(
            "nothing to do: every finished run was judged by today's code (--everything repeats it)"
        )


def _verdicts(given: argparse.Namespace) -> None:
    from lossatlas.claims import judge
    from lossatlas.pipeline import StageError
    from lossatlas.report.records import RecordsError

    try:
        path = judge.write(Path(given.results_dir) / given.study)
    except RecordsError as error:
        raise StageError(str(error)) from None
    print(judge.describe(path))
    print(path)


def _readme(given: argparse.Namespace) -> None:
    from lossatlas.pipeline import require_checkout
    from lossatlas.report.readme import write

    require_checkout()
    print(write("results/begin"))


def _losses(given: argparse.Namespace) -> None:
    from lossatlas import losses

    for name in losses.names():
        parameters = ", ".join(str(p).split(":")[0] for p in losses.parameters(name))
        print(f"{name:18s} {parameters}")


if __name__ == "__main__":
    raise SystemExit(main())
