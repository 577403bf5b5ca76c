"""The benchmark's tables and verdicts come from its rows."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest

from lossatlas.report import benchmark

matplotlib.use("Agg")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def measured(tmp_path):
    rows = [
        ("S1", "ce", "torch", 1.0, 1.0),
        ("S1", "ce", "lossatlas", 1.1, 0.5),
        ("S1", "dice", "lossatlas", 0.7, 0.6),
        ("S1", "dice", "kornia", 1.7, 2.0),
        ("S1", "dice", "smp", 7.0, 0.5),
        ("S1", "poly1", "lossatlas", 1.0, 0.4),
    ]
    frame = pd.DataFrame(rows, columns=["shape", "loss", "library", "time_ratio", "memory_ratio"])
    frame.assign(device="cpu", threads=1, size="1x2x4x4").to_csv(
        tmp_path / "losses.csv", index=False
    )
    scaling = [
        ("pixels", p, 4, loss, 3.0) for p in (16, 64) for loss in ("ce", "lovasz_softmax 64 bins")
    ]
    scaling += [("classes", 16, c, "ce", 3.0) for c in (2, 4)]
    pd.DataFrame(scaling, columns=["axis", "pixels", "classes", "loss", "ns_per_logit"]).to_csv(
        tmp_path / "scaling.csv", index=False
    )
    pd.DataFrame(
        [("S1", "every loss", "an exponential", 0.2), ("S2", "every loss", "an exponential", 0.3)],
        columns=["shape", "loss", "what", "ratio"],
    ).to_csv(tmp_path / "floor.csv", index=False)
    machine = {"cpu": "a cpu", "gpu": None, "capability": "AVX2", "threads": 1, "python": "3.11"}
    machine |= {"measured_utc": "now", "versions": {"torch": "2"}, "how": "medians."}
    (tmp_path / "losses.json").write_text(json.dumps(machine))
    return benchmark.load(tmp_path)


def test_the_table_sets_ours_beside_the_fastest_and_the_lightest_peer(measured):
    table = benchmark.table(measured, "cpu", "S1")
    assert list(table.loc["dice"]) == ["0.70×", "1.70× (kornia)", "0.60×", "0.50× (smp)"]
    assert list(table.loc["poly1"]) == ["1.00×", "–", "0.40×", "–"]


def test_every_cell_in_which_a_peer_is_ahead_is_listed(measured):
    found = benchmark.behind(measured)
    assert list(zip(found.loss, found.what, strict=True)) == [("ce", "time"), ("dice", "memory")]
    assert benchmark.compared(measured) == 2


def test_every_processor_that_measured_has_a_row(measured, tmp_path):
    other = tmp_path / "machines" / "another"
    other.mkdir(parents=True)
    for path in tmp_path.glob("losses.*"), tmp_path.glob("scaling.csv"), tmp_path.glob("floor.csv"):
        for each in path:
            (other / each.name).write_text(each.read_text().replace("a cpu", "another cpu"))
    rows = pd.read_csv(other / "losses.csv")
    rows.loc[rows.library == "lossatlas", "time_ratio"] = 2.0  # behind both, and past every target
    rows.to_csv(other / "losses.csv", index=False)
    found = benchmark.machines(tmp_path)
    assert list(found.processor) == ["a cpu, AVX2", "another cpu, AVX2"]
    assert list(found["a peer is faster"]) == [1, 2] and list(found.pairs) == [2, 2]
    assert list(found.targets) == [len(benchmark.targets(measured))] * 2
    met = (benchmark.targets(measured).iloc[:, -1] == "met").sum()
    assert list(found["targets met"]) == [met, 0] and met > 0
    assert set(found["timed after"]) == {"another loss"}  # records of before do not say it


def test_the_figures_draw_every_loss(measured):
    names = [label.get_text() for label in benchmark.plot(measured).axes[0].get_yticklabels()]
    assert names == ["poly1", "dice", "ce"]
    plt.close("all")


def test_without_a_benchmark_the_error_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="make bench"):
        benchmark.load(tmp_path)


def test_a_target_is_missed_by_its_time_or_by_its_memory_alone(measured):
    table = benchmark.targets(measured).set_index("loss")
    assert table.loc["ce", ""] == "met"  # 1.1 and 0.5 are the limits themselves
    assert table.loc["dice", ""] == "missed"  # fast enough, but 0.6 > 0.5 of the memory


def test_the_page_counts_targets_and_draws_every_loss_of_the_recorded_measurement(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    for cell in nbformat.read("notebooks/reports/benchmark.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    assert 0 < names["met"] <= len(names["targets"])
    drawn = {line.get_label() for line in names["grid"].axes_dict["pixels"].lines}
    scaling = names["measured"].scaling
    assert drawn == set(scaling[scaling.axis == "pixels"].loss)
    assert {"loss", "what", "S1"} <= set(names["floor"])
    plt.close("all")


def test_a_record_of_other_losses_says_so_and_one_of_today_s_does_not(measured, tmp_path):
    module = tmp_path / "sums.py"
    module.write_text('"""Sums."""\n\n\ndef add(a, b):\n    """Add."""\n    return a + b  # both\n')
    assert "Measured with other losses" in measured.stale(tmp_path), "a record that names no code"
    measured.machine["losses_code"] = benchmark.code(tmp_path)
    assert measured.stale(tmp_path) == ""
    module.write_text(module.read_text().replace("Add.", "The sum.").replace("  # both", ""))
    assert measured.stale(tmp_path) == "", "words do not make a loss slower"
    module.write_text(module.read_text().replace("a + b", "b + a"))
    assert "has changed since" in measured.stale(tmp_path)


def test_what_was_missed_names_targets_and_peers_and_two_threads_are_a_device_of_their_own(
    measured,
):
    rows = measured.rows
    slow = rows[rows.loss == "dice"].assign(threads=2, time_ratio=[2.0, 1.7, 7.0])
    found = benchmark.missed(pd.concat([rows, slow]))
    assert list(zip(found.device, found.loss, found.what, strict=True)) == [
        ("cpu", "dice", "target"),
        ("cpu", "ce", "time"),
        ("cpu", "dice", "memory"),
        ("cpu, 2 threads", "dice", "time"),
        ("cpu, 2 threads", "dice", "memory"),
    ]
    assert list(found.limit)[:2] == ["≤ 0.7× time, ≤ 0.5× memory", "1.00× (torch)"]
