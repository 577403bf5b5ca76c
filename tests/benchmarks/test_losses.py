"""The benchmark of the losses measures one thread and the default, plain and compiled, and lists what it missed."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import pytest
import torch

from lossatlas import losses
from lossatlas.report import benchmark as report


@pytest.fixture
def benchmark(monkeypatch, script):
    module = script("benchmarks/losses.py")
    monkeypatch.setattr(module, "PEERS", {})
    monkeypatch.setattr(module, "COMPILED", ("dice", "lovasz_softmax 4096 bins"))
    # No compiler is needed to see that the compiled formulas run.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    return module


def test_a_run_writes_every_table_with_threads_compiled_formulas_and_the_version(
    benchmark, tmp_path
):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        options = "--quick --shapes S3 --compiled --device cpu --no-scaling --no-floor"
        benchmark.main(["--out", str(tmp_path), *options.split()])
    finally:
        torch.set_num_threads(before)
    with (tmp_path / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["threads"] for row in rows} == {"1", "2"}
    values = {(row["threads"], row["loss"], row["library"]): float(row["value"]) for row in rows}
    for loss in benchmark.COMPILED:
        plain, compiled = (values["1", loss, f"lossatlas{how}"] for how in ("", " compiled"))
        assert compiled == pytest.approx(plain, rel=1e-3)
    described = json.loads((tmp_path / "losses.json").read_text())
    assert described["losses_version"] == losses.VERSION
    assert described["timed_after"] == "itself"
    assert described["losses_code"] == report.code(Path(losses.__file__).parent)
    with (tmp_path / "void.csv").open() as file:
        ignored = list(csv.DictReader(file))
    assert {row["library"] for row in ignored} == {"lossatlas", "torch"}
    assert {row["data"] for row in ignored} == {"no pixel is void", "5% are void"}
    assert all(float(row["ratio"]) > 0 for row in ignored)
    with (tmp_path / "missed.csv").open() as file:
        missed = list(csv.DictReader(file))
    targets = [row for row in missed if row["what"] == "target"]
    assert targets and all(row["shape"] == "S3" for row in targets)


def test_the_step_that_is_timed_follows_one_of_the_same_loss(benchmark, monkeypatch):
    called, timed = [], []

    def contender(name):
        return lambda logits, target: called.append(name) or logits.sum()

    one = {(name, "lossatlas"): contender(name) for name in "ab"}
    monkeypatch.setattr(
        benchmark, "contenders", lambda channels: {("ce", "torch"): contender("ce")} | one
    )
    plain = benchmark.seconds
    monkeypatch.setattr(
        benchmark, "seconds", lambda *step: (timed.append(len(called)), plain(*step))[1]
    )
    benchmark.measure("S3", (1, 3, 4, 4, 4), "cpu", 2, compiled=False)
    assert len(timed) == 6
    assert all(called[i] == called[i - 1] for i in timed)


def test_a_gpu_that_is_not_there_is_named(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        benchmark.main(["--out", str(tmp_path), "--device", "cuda"])
    assert "needs a GPU" in capsys.readouterr().err
