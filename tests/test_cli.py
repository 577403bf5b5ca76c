"""The command line: help, completion, exit status, and a line where a person made a mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lossatlas import cli, commands

SHOWN = ["advise", "compare", "predict", "export", "data", "plan", "run", "status"]
SHOWN += ["retry", "collect", "losses", "book"]
WITH_EXAMPLES = sorted(set(SHOWN) - {"data"})


def test_help_lists_every_command_and_every_exit_status(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in SHOWN)
    assert all(f"{code}  {meaning}" in text for code, meaning in cli.EXIT_CODES.items())
    assert text.count("...") == 1, "a description is cut off"  # ARGS... alone


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_help_of_a_command_has_examples_that_parse(name, capsys):
    assert cli.main([name, "--help"]) == 0
    shown = capsys.readouterr().out.split("Examples:\n")[1].splitlines()
    lines = [line.split() for line in shown if line.strip()]
    assert lines and all(line[:2] == ["lossatlas", name] for line in lines)
    command = cli.cli.commands[name]
    for line in lines:
        command.make_context(name, line[2:])


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (
            "from lossatlas import cli; cli.main(['--help'])",
            {"torch", "pandas", "numpy", "pydantic", "matplotlib"},
        ),
        ("import lossatlas.book, lossatlas.workflow, lossatlas.experiments.collect", {"torch"}),
    ],
    ids=["help", "book, plan and status"],
)
def test_what_is_asked_for_often_imports_nothing_heavy(code, heavy):
    code = f"import sys; {code}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adivse"], "Did you mean 'advise'"),
        (["advise", ".", "--htlm", "x"], "Did you mean"),
        (["advise"], "Missing argument 'ROOT'"),
        (["advise", ".", "--need", "masks"], "'mask', 'probability', 'boundary'"),
        (["plan", "quick", "--jobs", "0"], "x>=1"),
        (["retry", "quick"], "expected --failed, --diverged or both, got neither"),
        (["predict", "a", "b"], "Missing option '--out'"),
        (["data", "get"], "Missing argument 'NAME...'"),
    ],
)
def test_a_mistake_in_the_command_line_is_exit_2_and_says_what(arguments, said, capsys):
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "quik"], "no study 'quik'"),
        (["data", "path", "camvod"], "did you mean camvid"),
        (["data", "check", "nowhere"], "nowhere"),
        (["advise", "nowhere"], "lossatlas: folder: expected a folder root='nowhere'"),
        (["advise", ""], "expected a folder, got ''; name it, or write '.'"),
        (["compare", "", "--dry-run"], "expected a folder, got ''; name it, or write '.'"),
        (["compare", "~nobody of this name/set", "--dry-run"], "found none; correct root"),
        (["compare", ".", "--budget", "soon"], "expected a time such as 90s, 30m or 2h"),
        (["compare", ".", "--losses", "ce", "dicee"], "did you mean dice"),
        (["compare", ".", "--losses", "ce"], "expected two or more"),
        (["predict", "nowhere", ".", "--out", "o"], "nowhere"),
        (["verdicts", "quik"], "quik"),
        (["book"], "expected the root of a Loss Atlas checkout"),
        (["run", "quick"], "expected the root of a Loss Atlas checkout"),
    ],
)
def test_a_mistake_in_names_and_files_is_exit_1_and_one_message(
    arguments, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    found = capsys.readouterr()
    assert (
        found.err.startswith("lossatlas: ") and said in found.err and "Traceback" not in found.err
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(28, "No space left on device"), 1),
        (PermissionError(13, "Permission denied"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_a_full_disk_missing_rights_and_ctrl_c_are_a_line(error, status, capsys, monkeypatch):
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli.cli.commands["schema"], "callback", fail)
    assert cli.main(["schema"]) == status
    assert capsys.readouterr().err.lstrip().startswith("lossatlas: ")


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli.cli.commands["schema"], "callback", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["schema"])


def test_a_traceback_is_shown_on_request(monkeypatch):
    monkeypatch.setenv("LOSSATLAS_TRACEBACK", "1")
    with pytest.raises(ValueError, match="quik"):
        cli.main(["plan", "quik"])


@pytest.mark.slow
def test_ctrl_c_ends_a_command_with_130_and_a_line(tmp_path):
    code = (
        "import signal, sys, time; from lossatlas import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job is started without it
        "cli.cli.commands['schema'].callback = lambda: (print('on', flush=True), time.sleep(60))\n"
        "sys.exit(cli.main(['schema']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "_LOSSATLAS_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(("typed", "found"), [("comp", "compare"), ("plan imbal", "imbalance")])
def test_completion_knows_commands_and_studies(typed, found):
    words = f"lossatlas {typed}"
    done = subprocess.run(
        [sys.executable, "-m", "lossatlas.cli"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_LOSSATLAS_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
    )
    assert f"plain,{found}" in done.stdout.splitlines(), done.stderr


def test_losses_can_be_typed_as_a_list_or_one_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("my", "o", "dice"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(commands.compare, "callback", lambda losses, root, **_: (root, losses))
    for typed in (
        ["my", "--losses", "ce", "dice", "--out", "o"],
        ["my", "--losses", "ce", "--losses", "dice"],
        ["--losses", "ce", "--losses", "dice", "--out", "o", "my"],
        ["--losses", "ce", "dice", "my", "--budget", "5m"],
        ["--out", "o", "--losses", "ce", "dice", "my"],
    ):
        found = commands.compare.main(typed, standalone_mode=False)
        assert found == ("my", ("ce", "dice")), typed


@pytest.mark.parametrize("name", ["plan", "status"])
def test_plan_and_status_have_json(name, capsys, tmp_path):
    assert cli.main([name, "quick", "--json", "--runs-dir", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["study"] == "quick"


def test_losses_has_json(capsys):
    assert cli.main(["losses", "--json"]) == 0
    assert "gamma" in json.loads(capsys.readouterr().out)["focal"]


def test_a_dry_run_writes_nothing(capsys, tmp_path):
    for arguments in (
        ["run", "quick", "--dry-run"],
        ["retry", "quick", "--failed", "--dry-run"],
        ["collect", "quick", "--dry-run"],
    ):
        where = ["--runs-dir", str(tmp_path / "runs"), "--results-dir", str(tmp_path / "results")]
        assert cli.main([*arguments, *where]) == 0
    said = capsys.readouterr().out
    assert (
        "of training" in said
        and "0 would be added, 0 would be lost" in said
        and not list(tmp_path.iterdir())
    )


def test_every_command_and_option_says_what_it_is_for():
    from lossatlas.data.cli import data

    for command in [*cli.cli.commands.values(), *data.commands.values()]:
        assert command.help, command.name
        for each in command.params:
            named = isinstance(each, click.Argument) or each.help or each.type.name == "choice"
            assert named, (command.name, each.name)


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        (["run", "quick"], "failed"),
        (["retry", "quick", "--failed"], "failed"),
        (["collect", "quick"], "records"),
        (["book"], "page"),
    ],
)
def test_a_result_is_json_alone_and_what_is_said_goes_beside_it(typed, key, capsys, monkeypatch):
    from lossatlas import book, workflow
    from lossatlas.experiments import collect

    def saying(found):
        def made(*_, **__):
            print("a word on the way")
            return found

        return made

    monkeypatch.setattr(workflow, "run_study", saying(["ce · seed 0: failed"]))
    monkeypatch.setattr(workflow, "retry", saying(["ce · seed 0: failed"]))
    monkeypatch.setattr(collect, "collect", saying(Path("results/quick")))
    monkeypatch.setattr(book, "make_book", saying(Path("book/index.html")))
    status = cli.main([*typed, "--json"])
    shown = capsys.readouterr()
    assert key in json.loads(shown.out) and "a word on the way" in shown.err
    assert status == (1 if key == "failed" else 0)
