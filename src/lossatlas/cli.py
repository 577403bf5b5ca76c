"""The command line: a thin face over the package.

``lossatlas --help`` lists the commands; ``lossatlas COMMAND --help`` says what one needs, with examples.
Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

try:
    import click
except ImportError:
    raise SystemExit(
        "lossatlas: expected the package click, which reads the command line, found it not installed; "
        "pip install 'lossatlas[experiments]'"
    ) from None

from lossatlas.commands import (
    COMMANDS,
    examples,
    json_option,
    print_json,
    require_writable,
    result_alone,
)

#: What the exit status says; ``lossatlas --help`` prints it.
EXIT_CODES = {
    0: "done",
    1: "not done, or something is wrong in the data or the study: the message says what",
    2: "the command line has a mistake: unknown option, missing argument, wrong type",
    75: "asked to stop by its scheduler (SIGTERM): the same command goes on",
    130: "stopped by Ctrl-C: what is finished stays, the same command goes on",
}


class _Commands(click.Group):
    """The commands; ``data`` is imported when it is called, because torch comes with it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name == "data":
            from lossatlas.data.cli import data

            command = data
        return name, command, rest


_CODES = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())


@click.group(
    cls=_Commands,
    help="Loss Atlas: advice, fair comparisons and records of segmentation losses.",
    epilog=f"""\b
Exit status:
{_CODES}

\b
Tab completion: eval "$(lossatlas completion bash)", or zsh, or fish.
LOSSATLAS_TRACEBACK=1 shows where an error was raised.""",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="lossatlas", prog_name="lossatlas")
def cli() -> None:
    """Hold the commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of ``arguments`` (those of the process by default); the exit status.

    A mistake of the person who typed is one line on standard error, never a traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = cli.main(given, prog_name="lossatlas", standalone_mode=False, obj=_WEIGHTS)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print(
            "lossatlas: stopped; what is finished stays, the same command goes on", file=sys.stderr
        )
        return 130
    except Exception as error:
        if os.environ.get("LOSSATLAS_TRACEBACK") or not _is_told(error):
            raise
        print(f"lossatlas: {error}", file=sys.stderr)
        return 1
    return status if isinstance(status, int) else 0


def _is_told(error: Exception) -> bool:
    """Whether the message says what is wrong outside this program: files, disk, rights, or input.

    An exception class of this package is raised with a message for people.
    """
    ours = any(each.__module__.startswith("lossatlas.") for each in type(error).__mro__)
    return ours or isinstance(error, OSError)


def _weights_of(name: str) -> Callable[[Any], Any]:
    """Class weights by name, from (images, classes) pixel counts as an array."""

    def weights(counts: Any) -> Any:
        import torch

        from lossatlas.experiments.components import CLASS_WEIGHTS

        return CLASS_WEIGHTS[name](torch.from_numpy(counts))

    return weights


_WEIGHTS = {
    name: _weights_of(name)
    for name in (
        "inverse_frequency",
        "median_frequency",
        "median_frequency_dataset",
        "enet_log",
        "effective_number",
    )
}


# -- options that several commands share ----------------------------------------------------------


def _studies(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Names of the studies here, for completion."""
    from lossatlas.experiments.study import study_names

    return [name for name in study_names() if name.startswith(typed)]


_study = click.argument("study", shell_complete=_studies)
_runs_dir = click.option(
    "--runs-dir", default="runs", show_default=True, help="The folder of the run folders."
)
_results_dir = click.option(
    "--results-dir", default="results", show_default=True, help="The folder of the records."
)
_jobs = partial(click.option, "--jobs", type=click.IntRange(min=1))
_jobs_at_a_time = _jobs(help="Jobs at a time (default: one for each core).")
_profile = click.option(
    "--profile",
    default="workflow/profiles/local",
    show_default=True,
    help="Snakemake profile: where the jobs run.",
)
_mixed = click.option(
    "--mixed",
    is_flag=True,
    help="Take runs of different code together in the records, marked as such.",
)
_accelerator = click.option(
    "--accelerator",
    default="auto",
    show_default=True,
    type=click.Choice(("auto", "cpu", "cuda", "gpu", "mps")),
)
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


# -- the commands ---------------------------------------------------------------------------------


@cli.command(epilog=examples("lossatlas book", "lossatlas book --study imbalance --jobs 2"))
@click.option("--study", help="A study to run first, by name or file.", shell_complete=_studies)
@_jobs(help="Trainings and notebooks at a time (default: one a core).")
@json_option
def book(study: str | None, jobs: int | None, as_json: bool) -> None:
    """Build the book from the records (as `make book` does)."""
    from lossatlas.book import make_book

    with result_alone(as_json):
        page = make_book(study, jobs=jobs)
    if as_json:
        print_json({"page": page})


@cli.command(epilog=examples("lossatlas plan imbalance", "lossatlas plan my/study.yaml --json"))
@_study
@_runs_dir
@_results_dir
@_jobs(help="Jobs at a time in the estimate (default: one for each core).")
@json_option
def plan(study: str, runs_dir: str, results_dir: str, jobs: int | None, as_json: bool) -> None:
    """Show a study's runs and what the missing ones cost.

    STUDY is the name of a study, or the path of a study's file.
    """
    _say_plan(study, runs_dir, results_dir, jobs, as_json)


def _say_plan(name: str, runs_dir: str, results_dir: str, jobs: int | None, as_json: bool) -> None:
    from lossatlas.experiments import load_study, status

    study = load_study(name)
    runs = status.survey(study, runs_dir, results_dir)
    cost = status.estimate(study, runs, workers=jobs)
    if as_json:
        print_json(
            {
                "study": study.study,
                "runs": status.counts(runs),
                "missing": len(status.needed(runs)),
                "estimate": vars(cost),
            }
        )
    else:
        print(status.describe_plan(study, runs, cost))


@cli.command(
    epilog=examples("lossatlas run quick", "lossatlas run imbalance --jobs 2 --stale --dry-run")
)
@_study
@_runs_dir
@_results_dir
@_jobs_at_a_time
@_profile
@click.option("--fresh", is_flag=True, help="Train every run again, also what is there.")
@click.option(
    "--stale",
    is_flag=True,
    help="Train runs again whose code has changed; re-evaluate where that alone has changed.",
)
@_mixed
@_dry_run
@json_option
def run(
    study: str,
    runs_dir: str,
    results_dir: str,
    jobs: int | None,
    profile: str,
    fresh: bool,
    stale: bool,
    mixed: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Train what a study lacks, then collect its records.

    STUDY is the name of a study, or the path of a study's file.
    """
    from lossatlas.experiments import load_study
    from lossatlas.experiments.status import survey
    from lossatlas.workflow import of_older_code, require_checkout, run_study

    if dry_run:
        _say_plan(study, runs_dir, results_dir, jobs, as_json)
        with result_alone(as_json):
            if fresh:
                print("--fresh: every run of the study is trained, also those that are there")
            elif stale:
                older = of_older_code(survey(load_study(study), runs_dir, results_dir))
                print(f"--stale: {len(older)} runs are of older code")
        return 0
    require_checkout()
    places = {"runs_dir": runs_dir, "results_dir": results_dir}
    train = partial(run_study, jobs=jobs, profile=profile, fresh=fresh, stale=stale)
    return _trained_and_collected(study, train, places, mixed, as_json)


def _trained_and_collected(
    study: str,
    train: Callable[..., list[str]],
    places: dict[str, str],
    mixed: bool,
    as_json: bool,
) -> int:
    """Train, collect and say how it went; the exit status."""
    with result_alone(as_json):
        failed = train(study, **places)
        folder = _collect(study, places["runs_dir"], places["results_dir"], mixed=mixed)
    if as_json:
        print_json({"study": study, "records": folder, "failed": failed})
    return 1 if failed else 0


@cli.command(epilog=examples("lossatlas status imbalance", "lossatlas status quick --json"))
@_study
@_runs_dir
@_results_dir
@click.option("--strict", is_flag=True, help="Exit with 1 unless every run is there.")
@json_option
def status(study: str, runs_dir: str, results_dir: str, strict: bool, as_json: bool) -> int:
    """Show how far a study is, and what failed and why.

    STUDY is the name of a study, or the path of a study's file.
    """
    from lossatlas.experiments import load_study
    from lossatlas.experiments import status as progress

    loaded = load_study(study)
    runs = progress.survey(loaded, runs_dir, results_dir)
    if as_json:
        rows = [
            {
                "run": str(each.member),
                "run_id": each.config.run_id if each.config else None,
                "state": each.state,
                "reason": each.reason,
            }
            for each in runs
        ]
        print_json({"study": loaded.study, "counts": progress.counts(runs), "runs": rows})
    else:
        print(progress.describe_status(loaded, runs))
    return 1 if strict and progress.needed(runs) else 0


@cli.command(epilog=examples("lossatlas retry imbalance --failed --dry-run"))
@_study
@_runs_dir
@_results_dir
@_jobs_at_a_time
@_profile
@click.option("--failed", is_flag=True, help="Runs whose training raised an error.")
@click.option("--diverged", is_flag=True, help="Runs that are recorded as diverged.")
@_mixed
@_dry_run
@json_option
def retry(
    study: str,
    runs_dir: str,
    results_dir: str,
    jobs: int | None,
    profile: str,
    failed: bool,
    diverged: bool,
    mixed: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Try a study's failed or diverged runs again.

    STUDY is the name of a study, or the path of a study's file.
    """
    from lossatlas import workflow

    states = {name for name, on in (("failed", failed), ("diverged", diverged)) if on}
    if not states:
        raise click.UsageError("expected --failed, --diverged or both, got neither")
    if dry_run:
        from lossatlas.experiments import load_study
        from lossatlas.experiments.status import survey

        again = [
            each
            for each in survey(load_study(study), runs_dir, results_dir)
            if each.state in states
        ]
        if as_json:
            print_json({"study": study, "runs": {str(e.member): e.reason for e in again}})
        else:
            lines = [*(f"{each.member}: {each.reason}" for each in again), f"{len(again)} runs"]
            print("\n".join(lines))
        return 0
    workflow.require_checkout()
    places = {"runs_dir": runs_dir, "results_dir": results_dir}
    train = partial(workflow.retry, jobs=jobs, profile=profile, states=states)
    return _trained_and_collected(study, train, places, mixed, as_json)


@cli.command()
@_study
@click.argument("job")
@_runs_dir
@_results_dir
@_accelerator
@click.option(
    "--keep-going",
    is_flag=True,
    help="Exit 0 also where runs failed; their notes say which, and status --strict fails.",
)
def train(
    study: str, job: str, runs_dir: str, results_dir: str, accelerator: str, keep_going: bool
) -> int:
    """Train the runs of one job (what the workflow types)."""
    from lossatlas.experiments import load_study
    from lossatlas.experiments.jobs import train_job

    require_writable("runs", runs_dir, "--runs-dir")
    outcomes = train_job(
        load_study(study),
        job,
        runs_dir=runs_dir,
        results_dir=results_dir,
        accelerator=accelerator,
    )
    failed = [each for each in outcomes if each.status in ("failed", "no rate chosen")]
    if failed:
        print(f"{len(failed)} of {len(outcomes)} runs of {job} failed:", file=sys.stderr)
        for each in failed:
            print(f"  {each.member}: {each.reason}", file=sys.stderr)
    return 1 if failed and not keep_going else 0


@cli.command()
@_study
@_runs_dir
@_results_dir
def select(study: str, runs_dir: str, results_dir: str) -> None:
    """Choose each loss's learning rate from tuning runs."""
    from lossatlas.experiments import load_study
    from lossatlas.workflow import select_rates

    require_writable("runs", runs_dir, "--runs-dir")
    select_rates(load_study(study), runs_dir, results_dir)


@cli.command()
def schema() -> None:
    """Write the JSON schema of a study's file."""
    from lossatlas.experiments.study import SCHEMA_FILE, json_schema
    from lossatlas.workflow import require_checkout

    require_checkout()
    SCHEMA_FILE.write_text(json_schema(), encoding="utf-8")
    print(SCHEMA_FILE)


@cli.command(epilog=examples("lossatlas collect imbalance"))
@_study
@_runs_dir
@_results_dir
@_mixed
@click.option(
    "--fewer", is_flag=True, help="Replace records that have more runs than are there now."
)
@_dry_run
@json_option
def collect(
    study: str,
    runs_dir: str,
    results_dir: str,
    mixed: bool,
    fewer: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Gather a study's finished runs into results/STUDY.

    STUDY is the name of a study, or the path of a study's file.
    """
    if dry_run:
        _preview(study, runs_dir, results_dir, as_json, mixed=mixed, fewer=fewer)
        return
    with result_alone(as_json):
        folder = _collect(study, runs_dir, results_dir, mixed=mixed, fewer=fewer)
    if as_json:
        print_json({"study": study, "records": folder})


def _preview(
    name: str, runs_dir: str, results_dir: str, as_json: bool, *, mixed: bool, fewer: bool
) -> None:
    from lossatlas.experiments import load_study
    from lossatlas.experiments.collect import preview
    from lossatlas.workflow import require_checkout

    require_checkout()
    study = load_study(name)
    would = preview(
        study, runs_dir=runs_dir, results_dir=results_dir, file=name, mixed=mixed, fewer=fewer
    )
    folder = Path(results_dir) / study.study
    if as_json:
        print_json({"study": name, "records": folder, **dataclasses.asdict(would)})
        return
    print(
        f"{folder}: {would.kept} runs would stay as they are, {would.renewed} would be renewed, "
        f"{would.added} would be added, {would.lost} would be lost; {would.missing} are not trained yet"
    )
    if would.refused:
        print(f"it would be refused: {would.refused}")


def _collect(
    name: str, runs_dir: str, results_dir: str, *, mixed: bool = False, fewer: bool = False
) -> Path:
    from lossatlas.data.errors import room_for
    from lossatlas.experiments import load_study
    from lossatlas.experiments.collect import collect
    from lossatlas.workflow import require_checkout

    require_checkout()
    study = load_study(name)
    judged = (Path(results_dir) / study.study / "verdicts.json").is_file()
    kept = "or name another place with --results-dir; the records that were there are kept"
    with room_for("records", results_dir, kept):
        folder = collect(
            study, runs_dir=runs_dir, results_dir=results_dir, file=name, mixed=mixed, fewer=fewer
        )
    print(folder)
    if judged and not (folder / "verdicts.json").is_file():
        print(
            f"the verdicts went with the records that they came from: lossatlas verdicts {study.study}"
        )
    return folder


@cli.command(epilog=examples("lossatlas evaluate imbalance --accelerator cpu"))
@_study
@_runs_dir
@_results_dir
@_accelerator
@click.option(
    "--everything", is_flag=True, help="Also the runs that today's code has evaluated already."
)
def evaluate(
    study: str, runs_dir: str, results_dir: str, accelerator: str, everything: bool
) -> None:
    """Re-evaluate a study's trained networks; train nothing.

    STUDY is the name of a study, or the path of a study's file.
    """
    from lossatlas.experiments import load_study
    from lossatlas.experiments.reevaluate import reassess_study

    require_writable("runs", runs_dir, "--runs-dir")
    count = reassess_study(
        load_study(study), runs_dir=runs_dir, accelerator=accelerator, everything=everything
    )
    if count:
        where = "" if runs_dir == "runs" else f" --runs-dir {runs_dir}"
        print(f"{count} runs evaluated; `lossatlas collect {study}{where}` takes them up")
    else:
        print(
            "nothing to do: every finished run was judged by today's code (--everything repeats it)"
        )


@cli.command()
@click.argument("study")
@_results_dir
def verdicts(study: str, results_dir: str) -> None:
    """Settle the ledger's claims from a study's records.

    Writes results/STUDY/verdicts.json.
    """
    from lossatlas.claims import judge

    require_writable("verdicts", Path(results_dir) / study, "--results-dir")
    path = judge.write(Path(results_dir) / study)
    print(judge.describe(path))
    print(path)


@cli.command()
def readme() -> None:
    """Write the README's answer and picture from records."""
    from lossatlas.claims.readme import write
    from lossatlas.workflow import require_checkout

    require_checkout()
    print(write("results/begin", "results/thresholds"))


@cli.command(epilog=examples("lossatlas losses", "lossatlas losses --json"))
@json_option
def losses(as_json: bool) -> None:
    """List the losses and their parameters."""
    from lossatlas import losses as registry

    rows = {
        name: [str(each).split(":")[0] for each in registry.parameters(name)]
        for name in registry.names()
    }
    if as_json:
        print_json(rows)
    else:
        for name, parameters in rows.items():
            print(f"{name:18s} {', '.join(parameters)}")


@cli.command(
    epilog=examples(
        'eval "$(lossatlas completion bash)"',
        "lossatlas completion fish > ~/.config/fish/completions/lossatlas.fish",
    )
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the script for completion by Tab."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, shell
    print(found(cli, {}, "lossatlas", "_LOSSATLAS_COMPLETE").source())


@cli.group()
def data() -> None:
    """Fetch, list, verify, find, check and describe data sets."""


for _command in COMMANDS:
    cli.add_command(_command)


if __name__ == "__main__":
    raise SystemExit(main())
