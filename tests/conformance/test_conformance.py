"""Other libraries beside ours: equal where the conventions are equal, and each difference recorded on purpose.

The rows, scenes and properties are those of ``benchmarks/conformance.py``, whose record the book's
page shows. Here they run again, so that a verdict that moves, in a new release of a peer or in ours,
fails a test.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

for peer in ("segmentation_models_pytorch", "monai", "kornia"):
    pytest.importorskip(peer)

ROOT = Path(__file__).parents[2]
torch.set_num_threads(1)


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "conformance", ROOT / "benchmarks" / "conformance.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["conformance"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


conformance = load()
RECORD: dict[str, Any] = json.loads(conformance.RECORD.read_text())
RECORDED = {(c["loss"], c["library"], c["theirs"]): c for c in RECORD["comparisons"]}
FOUND = {(f["property"], f["library"], f["call"]): f for f in RECORD["findings"]}


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return conformance.namespace()


@pytest.mark.parametrize(
    "row", conformance.ROWS, ids=lambda r: f"{r.library}-{r.loss}-{conformance.short(r.theirs)}"
)
def test_a_peers_value_and_gradient_are_those_of_a_named_call_of_ours(
    row: Any, names: dict[str, Any]
) -> None:
    """To 1e-6 in float64 (2e-6 where the peer computes in float32): either our default, or the recorded difference."""
    got = conformance.compare(row, names)
    assert got.verdict != "unexplained", got.values
    assert got.largest_gap <= row.tolerance <= 2e-6
    recorded = RECORDED[row.loss, row.library, row.theirs]
    assert (got.verdict, got.because, got.reproduced_by) == (
        recorded["verdict"],
        recorded["because"],
        recorded["reproduced_by"],
    )
    if got.verdict == "differs":  # on purpose: the default calls must really differ somewhere
        scenes = conformance.scenes(row.mode)
        gaps = [
            max(
                conformance.gap(
                    conformance.evaluate(row.theirs, s, names),
                    conformance.evaluate(row.ours[0][0], s, names),
                )
            )
            for s in scenes
        ]
        assert max(gaps) > 1e-3


# Unified focal has a finding of its own: the peer takes probabilities.
COMPARED = {s.loss for s in conformance.SUBJECTS} - {"Unified focal"}


def of_subjects(probe: Callable[..., Any], *losses: str) -> list[Callable[..., Any]]:
    """A probe of every subject, or of those of the losses named."""
    return [
        partial(probe, subject)
        for subject in conformance.SUBJECTS
        if subject.loss in (losses or COMPARED)
    ]


PROBES: dict[str, list[Callable[..., Any]]] = {
    "ignoring equals removing": of_subjects(conformance.ignoring_equals_removing),
    "all ignored costs nothing": of_subjects(conformance.all_ignored_is_zero),
    "a stray label is refused": of_subjects(conformance.stray_label_is_refused),
    "half precision agrees with double": of_subjects(
        lambda subject, names: conformance.half_precision(subject, names, 1),
        "Dice",
        "Lovász-softmax",
    ),
    "a float32 gradient is that of float64": of_subjects(
        lambda subject, names: conformance.lovasz_float32(subject, names, 1, 512), "Lovász hinge"
    ),
    "the focal gradient is finite at certainty": [
        partial(conformance.focal_gradient_at_certainty, library, call)
        for _, library, call in conformance.FLAT
    ],
    "unified focal takes logits": [conformance.unified_focal_takes_probabilities],
}


@pytest.mark.parametrize("name", PROBES)
def test_a_property_holds_or_fails_as_recorded_and_always_holds_for_ours(
    name: str, names: dict[str, Any]
) -> None:
    found = [probe(names) for probe in PROBES[name]]
    found = [f for f in found if f is not None]  # a peer's call may have no ignore_index
    assert found
    moved = [f for f in found if f.holds != FOUND[f.property, f.library, f.call]["holds"]]
    assert not moved, "these findings are no longer as recorded"
    assert all(f.holds for f in found if f.library == "ours")


def test_an_absent_class_costs_what_the_page_says(names: dict[str, Any]) -> None:
    got = conformance.absent_class_table(names)
    assert [r["value"] for r in got] == pytest.approx(
        [r["value"] for r in RECORD["absent_class"]], rel=1e-9
    )
    # Four conventions, a factor of six.
    assert max(r["value"] for r in got) / min(r["value"] for r in got) == pytest.approx(6, rel=1e-3)


def test_a_met_soft_target_costs_what_the_page_says(names: dict[str, Any]) -> None:
    got = conformance.soft_target_table(names)
    assert [r["value"] for r in got] == pytest.approx(
        [r["value"] for r in RECORD["soft_target"]], rel=1e-6, abs=1e-6
    )


def test_the_page_is_what_the_record_renders_to() -> None:
    assert conformance.PAGE.read_text() == conformance.render(RECORD)


def test_the_page_has_a_verdict_for_every_row_and_every_property() -> None:
    page = conformance.PAGE.read_text()
    for row in conformance.ROWS:
        assert f"`{conformance.short(row.theirs)}`" in page
    for title, _ in conformance.PROPERTIES.values():
        assert f"### {title}" in page
    assert "unexplained" not in page


def test_a_wrong_convention_is_not_reproduced(names: dict[str, Any]) -> None:
    """The control: with the reason taken away the comparison must say that it cannot explain the difference."""
    row = next(r for r in conformance.ROWS if r.theirs.startswith("kornia.DiceLoss()"))
    bare = type(row)(row.loss, row.library, row.mode, row.theirs, row.ours[:1])
    assert conformance.compare(bare, names).verdict == "unexplained"
