"""Other libraries beside ours: equal where the conventions are equal, and each difference recorded on purpose.

The rows, scenes and properties are those of ``benchmarks/conformance.py``, whose record the book's
page shows. Here they run again, so that a verdict that moves, in a new release of a peer or in ours,
fails a test.
"""

from __future__ import annotations

import importlib.util
import json
import sys
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


def properties() -> list[Any]:
    cases = []
    for subject in conformance.SUBJECTS:
        if subject.loss == "Unified focal":
            continue
        tag = f"{subject.library}-{subject.loss}-{subject.mode}"
        cases.append(
            pytest.param(
                lambda n, s=subject: conformance.ignoring_equals_removing(s, n),
                id=f"ignoring-{tag}",
            )
        )
        cases.append(
            pytest.param(
                lambda n, s=subject: conformance.all_ignored_is_zero(s, n), id=f"all ignored-{tag}"
            )
        )
        cases.append(
            pytest.param(
                lambda n, s=subject: conformance.stray_label_is_refused(s, n), id=f"stray-{tag}"
            )
        )
        if subject.loss in ("Dice", "Lovász-softmax"):
            cases.append(
                pytest.param(
                    lambda n, s=subject: conformance.half_precision(s, n, 1), id=f"half-{tag}"
                )
            )
        if subject.loss == "Lovász hinge":
            cases.append(
                pytest.param(
                    lambda n, s=subject: conformance.lovasz_float32(s, n, 1, 512),
                    id=f"float32-{tag}",
                )
            )
    for _, library, call in conformance.FLAT:
        cases.append(
            pytest.param(
                lambda n, w=library, c=call: conformance.focal_gradient_at_certainty(w, c, n),
                id=f"flat-{library}",
            )
        )
    cases.append(pytest.param(conformance.unified_focal_takes_probabilities, id="logits-monai"))
    return cases


@pytest.mark.parametrize("probe", properties())
def test_a_property_holds_or_fails_as_recorded_and_always_holds_for_ours(
    probe: Any, names: dict[str, Any]
) -> None:
    found = probe(names)
    if found is None:
        return  # the peer's call has no ignore_index
    assert found.holds == FOUND[found.property, found.library, found.call]["holds"], found.measured
    if found.library == "ours":
        assert found.holds, found.measured


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
