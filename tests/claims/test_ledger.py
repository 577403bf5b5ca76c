"""The ledger: its data, its verdicts, and the numbers that the verdicts rest on."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lossatlas.claims import ledger
from lossatlas.claims.ledger import LedgerError
from lossatlas.theory import (
    atlas,
    categorical,
    focal,
    image_shares,
    information,
    lovasz,
    overlap,
    weighting,
)
from lossatlas.theory.verdict import Verdict, noted, notes, settled, settles

SOURCES = ledger.load()[0]
CLAIMS = {claim.id: claim for claim in ledger.load()[1]}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    return ledger.all_verdicts("no such folder")


def test_claims_and_headlines_are_numbered_without_a_gap() -> None:
    ids = list(CLAIMS)
    headlines = [name for name in ids if name.startswith("H")]
    assert headlines == [f"H{i}" for i in range(1, len(headlines) + 1)]
    assert ids == headlines + [str(i) for i in range(1, len(ids) - len(headlines) + 1)]


def test_the_sources_that_the_claims_come_from_all_make_some() -> None:
    assert set(SOURCES) == {source for claim in CLAIMS.values() for source in claim.source}


def test_every_computed_claim_has_a_verdict_and_every_experiment_awaits_a_study(
    verdicts: dict[str, Verdict],
) -> None:
    for claim in CLAIMS.values():
        awaiting = verdicts[claim.id].verdict == "awaiting"
        assert awaiting == (claim.kind == "experiment"), claim.id


def test_no_function_settles_a_claim_that_is_not_in_the_ledger(
    verdicts: dict[str, Verdict],
) -> None:
    known = {c.id for c in CLAIMS.values() if c.kind != "experiment"}
    assert set(settled()) == known


def test_the_verdicts_found_equal_those_noted_before(verdicts: dict[str, Verdict]) -> None:
    noted = {c.id: c.recorded for c in CLAIMS.values() if c.recorded}
    differing = {i: (v, verdicts[i].verdict) for i, v in noted.items() if verdicts[i].verdict != v}
    assert differing == {}


def test_a_verdict_is_what_a_computation_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    # With another arithmetic the same function returns another verdict.
    function = settled()["46"].__wrapped__  # type: ignore[attr-defined]
    assert function().verdict == "false"
    plain = categorical.thousand_classes
    monkeypatch.setattr(
        categorical,
        "thousand_classes",
        lambda multiplier=1.0, gamma=0.0: {**plain(multiplier * 10, gamma)},
    )
    assert function().verdict == "true"


def test_a_claim_cannot_be_settled_twice() -> None:
    ledger.all_verdicts("no such folder")
    with pytest.raises(ValueError, match="settled twice"):
        settles(46)(lambda: Verdict("true", ""))


def test_a_note_on_an_experiment_stands_beside_its_verdict_and_changes_none() -> None:
    claim = CLAIMS["19"]
    verdict = ledger.verdict_of(claim, "no such folder")
    assert verdict.verdict == "awaiting" and "dynamics" in verdict.because
    note = ledger.note_of(claim)
    assert "gradient" in note and "no answer to it" in note
    entry = ledger.entry(claim, verdict)
    assert f"without training: {note}" in entry and "(#shown-19)" in entry
    (shown,) = (block for block in ledger.settle(19).data.split("(shown-") if block)
    assert note in shown and "Awaiting" not in shown  # a chapter reads no records


def test_every_note_belongs_to_an_experiment_with_a_chapter(verdicts: dict[str, Verdict]) -> None:
    known = {c.id for c in CLAIMS.values() if c.kind == "experiment" and c.chapter}
    assert set(noted()) == known
    with pytest.raises(ValueError, match="two notes"):
        notes(19)(lambda: "")


def test_a_chapter_without_its_note_is_refused() -> None:
    claim = CLAIMS["7"]
    with pytest.raises(LedgerError, match="no function notes"):
        ledger.note_of(dataclasses.replace(claim, chapter="atlas"))


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="maybe"):
        Verdict("maybe", "")


def test_an_experiment_is_filled_from_a_studys_records(tmp_path: Path) -> None:
    claim = CLAIMS["7"]
    folder = tmp_path / claim.study
    folder.mkdir()
    record = {"verdict": "conditional", "because": "Δ = 0.10 (n = 8).", "condition": "At ½."}
    path = folder / "verdicts.json"
    path.write_text(json.dumps({"schema": 1, "verdicts": {"7": record}}), encoding="utf-8")
    assert ledger.verdict_of(claim, tmp_path) == Verdict(**record)
    path.write_text(json.dumps({"schema": 2, "verdicts": {}}), encoding="utf-8")
    with pytest.raises(LedgerError, match="schema"):
        ledger.verdict_of(claim, tmp_path)


def test_another_study_adds_to_a_claim_and_leaves_its_verdict(tmp_path: Path) -> None:
    for study, verdict in (("thresholds", "conditional"), ("again", "awaiting")):
        (tmp_path / study).mkdir()
        record = {"verdict": verdict, "because": f"{study}: Δ.", "condition": ""}
        content = {"schema": 1, "verdicts": {"7": record, "24": record}}
        (tmp_path / study / "verdicts.json").write_text(json.dumps(content), encoding="utf-8")
    assert ledger.further(CLAIMS["7"], tmp_path) == ["The study `again` says: **open**. again: Δ."]
    assert len(ledger.further(CLAIMS["24"], tmp_path)) == 2  # a computation settles it
    assert ledger.verdict_of(CLAIMS["7"], tmp_path).verdict == "conditional"
    text = ledger.page(ledger.all_verdicts(tmp_path), results_dir=tmp_path).data
    assert (
        "The study `again` says" in text
        and "{doc}`The study that settles it <studies/thresholds>`" in text
    )
    assert "The study" not in ledger.page(ledger.all_verdicts("none"), results_dir="none").data


def test_what_a_withdrawn_study_said_settles_nothing(tmp_path: Path) -> None:
    (tmp_path / "withdrawn/imbalance").mkdir(parents=True)
    record = {"verdict": "false", "because": "Δ.", "condition": ""}
    content = {"schema": 1, "verdicts": {"23": record, "5": record, "27": record}}
    old = tmp_path / "withdrawn/imbalance/verdicts.json"
    old.write_text(json.dumps(content), encoding="utf-8")
    withdrawn = {
        "schema": 1, "date": "2026-11-27", "why": "…", "studies": {"imbalance": ["23", "5"]},
    }  # fmt: skip
    file = tmp_path / "withdrawn/withdrawn.json"
    file.write_text(json.dumps(withdrawn), encoding="utf-8")
    verdict = ledger.verdict_of(CLAIMS["23"], tmp_path)
    assert verdict.verdict == "withdrawn" and "2026-11-27" in verdict.because
    assert ledger.verdict_of(CLAIMS["27"], tmp_path).verdict == "awaiting"  # it is not named
    (line,) = ledger.further(CLAIMS["5"], tmp_path)
    assert "is withdrawn since 2026-11-27" in line and "Δ" not in line
    entry = ledger.entry(CLAIMS["23"], verdict)
    assert "verdict-withdrawn" in entry and "The study that settles it" not in entry
    assert "/retractions" in entry
    # the study has been run since, and its records say something of the claim
    (tmp_path / "imbalance").mkdir()
    (tmp_path / "imbalance/verdicts.json").write_text(json.dumps(content), encoding="utf-8")
    assert ledger.verdict_of(CLAIMS["23"], tmp_path).verdict == "false"
    assert ledger.further(CLAIMS["5"], tmp_path) == ["The study `imbalance` says: **false**. Δ."]


def test_every_verdict_of_the_retracted_studies_is_withdrawn() -> None:
    verdicts = ledger.all_verdicts("results")
    # `imbalance` has run again, with networks that can answer; what its former relatives said stays withdrawn
    names = {path.name for path in Path("results/withdrawn").iterdir() if path.is_dir()}
    assert {"imbalance_long", "imbalance_steady", "imbalance_wide", "optimizers"} < names
    assert verdicts["23"].verdict in ("withdrawn", "true", "false", "conditional", "open")
    withdrawn = []
    for name in ("4", "5", "7", "8", "18", "24", "27", "H4"):
        said = ledger.further(CLAIMS[name], "results")
        former = [
            line for line in said if any(f"`{each}`" in line for each in names - {"imbalance"})
        ]
        assert all("withdrawn" in line for line in former), name
        assert said, name  # that, or what the study says now
        withdrawn += former
    assert len(withdrawn) > 4


def test_each_claim_has_its_anchor_and_a_link_to_the_cell(verdicts: dict[str, Verdict]) -> None:
    text = ledger.page(verdicts, results_dir="no such folder").data
    ids = [claim.id for claim in CLAIMS.values() if not claim.id.startswith("H")]
    anchors = re.findall(r"^\(([\w-]+)\)=$", text, flags=re.M)
    assert anchors == [f"claim-{name}" for name in ids]
    assert "(#shown-21)" in text and "(#shown-7)" not in text
    assert (
        "::::{container} claim verdict-false kind-derivation source-zh1 loss-dice loss-jaccard"
        in text
    )


def test_every_chapter_shows_the_claims_that_the_ledger_links_to() -> None:
    import nbformat

    folder = Path(__file__).resolve().parents[2] / "notebooks" / "derivations"
    for claim in CLAIMS.values():
        if not claim.chapter:
            continue
        notebook = nbformat.read(folder / f"{claim.chapter}.ipynb", as_version=4)
        calls = [c.source for c in notebook.cells if "ledger.settle(" in c.source]
        shown = {part.strip(' ")') for c in calls for part in c.split("settle(")[1].split(",")}
        assert claim.id in shown, f"claim {claim.id} is not shown in {claim.chapter}"


def test_the_books_pages_link_to_claims_that_there_are() -> None:
    known = {f"claim-{claim.id.lower()}" for claim in CLAIMS.values()}
    pages = (Path(__file__).resolve().parents[2] / "book").glob("*.md")
    linked = {link for page in pages for link in re.findall(r"\(#(claim-\w+)\)", page.read_text())}
    assert linked and linked <= known


def test_a_changed_verdict_is_said_on_the_page() -> None:
    claim = CLAIMS["21"]
    assert "earlier verification" in ledger.entry(claim, Verdict("true", "…"))
    assert "earlier verification" not in ledger.entry(claim, Verdict("false", "…"))


# --- the numbers, with their arithmetic ---------------------------------------------------------


def test_divergences_by_hand() -> None:
    # KL(½‖0.1) = ½ ln(0.5/0.1) + ½ ln(0.5/0.9) = 0.80472 − 0.29389.
    assert information.divergence([0.5, 0.5], [0.1, 0.9]) == pytest.approx(0.510826, abs=1e-6)
    assert information.entropy([1.0, 0.0]) == 0.0


def test_the_thousand_classes_by_hand() -> None:
    found = categorical.thousand_classes()
    assert found["positives"] == pytest.approx(2 * 0.2231436, abs=1e-6)
    assert found["negatives"] == pytest.approx(998 * 0.1053605, abs=1e-3)


def test_two_channels_move_twice_as_far() -> None:
    (ratio,) = categorical.two_channels(steps=1)["margin's step, softmax / sigmoid"]
    assert ratio == pytest.approx(2.0, rel=1e-9)


def test_the_weighted_minimiser_is_a_shift_by_ln_w() -> None:
    best, _ = weighting.weighted_minimiser()
    from lossatlas.theory.symbols import eta, w

    # w = 9, η = 0.1: 0.9/(0.9 + 0.9) = ½.
    assert best.subs({w: 9, eta: 0.1}) == pytest.approx(0.5)


def test_the_best_threshold_is_half_of_the_best_dice() -> None:
    for fraction in (0.01, 0.05, 0.2):
        facts = weighting.threshold_facts(fraction)
        assert facts["best threshold"] == pytest.approx(facts["D*/2"], abs=2e-3)


def test_focal_loss_is_not_calibrated_but_keeps_order() -> None:
    found = [focal.minimiser(eta) for eta in (0.1, 0.3, 0.5, 0.9)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.306, abs=1e-3)
    assert found[2] == pytest.approx(0.5, abs=1e-4)


def test_dice_and_jaccard_gradients_are_parallel() -> None:
    assert (overlap.gradients_are_parallel()["largest departure"] < 1e-10).all()


def test_the_largest_gap_between_dice_and_jaccard() -> None:
    _, gap, at = overlap.dice_of_jaccard()
    assert float(gap) == pytest.approx(3 - 2 * np.sqrt(2))
    assert float(at) == pytest.approx(np.sqrt(2) - 1)


def test_an_empty_mask_hardly_pulls_at_dice() -> None:
    table = overlap.empty_mask(4096).set_index("ε")["gradient"]
    # ε p(1−p)/(S+ε)² = 0.25/(2048+1)² for ε = 1.
    assert table["1"] == pytest.approx(0.25 / 2049**2, rel=1e-9)
    assert table["0"] == 0.0


def test_shares_agree_with_autograd() -> None:
    table = atlas.worst_disagreement(fractions=(0.1, 0.02), probs=(0.4, 0.05), pixels=200)
    assert (table["closed form − autograd"] <= 1e-9).all()


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("ce", (0.010, 0.083, 0.500)),
        ("weighted_ce", (0.50, 0.90, 0.99)),
        ("dice", (0.505, 0.524, 0.668)),
        ("dice_squared", (0.340, 0.500, 0.981)),
        ("tversky", (0.512, 0.553, 0.771)),
        ("mean_dice", (0.045, 0.205, 0.500)),
    ],
)
def test_the_table_of_shares(name: str, shares: tuple[float, ...]) -> None:
    found = [float(atlas.share_values(name, 0.01, q, 5000)) for q in (0.5, 0.1, 0.01)]
    assert found == pytest.approx(shares, abs=6e-4)


def test_the_measured_shares_are_those_of_the_labels() -> None:
    from lossatlas.data import is_available

    table = image_shares.measured().drop(columns="ratio")
    assert set(table["data set"]) == set(image_shares.FOREGROUND)
    here = [name for name in image_shares.FOREGROUND if is_available(name)]
    if not here:
        pytest.skip("none of the real data sets is at hand")
    kept = table[table["data set"].isin(here)].reset_index(drop=True)
    pd.testing.assert_frame_equal(image_shares.measure(here), kept)


def test_claim_36_follows_the_measured_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    function = settled()["36"].__wrapped__  # type: ignore[attr-defined]
    plain = image_shares.measured()
    for ratio, verdict in ((1.5, "false"), (3.0, "true")):
        monkeypatch.setattr(image_shares, "measured", lambda ratio=ratio: plain.assign(ratio=ratio))
        assert function().verdict == verdict


def test_lovasz_closed_form_agrees_and_is_the_jaccard_loss_on_hard_answers() -> None:
    assert (lovasz.check_lovasz()["vs autograd"] <= 1e-10).all()
    assert lovasz.equals_jaccard_at_vertices() < 1e-12


def test_float32_differences_lose_digits_where_the_closed_form_does_not() -> None:
    table = lovasz.float32_differences(200_000).set_index("increments")["median relative error"]
    assert table["differences in float32"] > 1e-3
    assert table["closed form in float32"] < 1e-6


def test_a_quote_is_counted_for_the_source_in_whose_language_it_is() -> None:
    table = ledger.sources_table().set_index("key")
    for key, source in SOURCES.items():
        spoken = [c.quote.get("language") for c in CLAIMS.values() if key in c.source]
        own = [word for word in spoken if word and ledger.LANGUAGES[word] == source["language"]]
        assert table.loc[key, "quoted"] == len(own)
        assert table.loc[key, "quoted in English"] == spoken.count("en")
    # Claim 1 is quoted in Spanish alone, claim 14 in Chinese, claim 31 in its source's English thread.
    assert [CLAIMS[i].quote["language"] for i in ("1", "14", "31")] == ["es", "zh", "en"]


def test_every_claim_shows_a_wording_with_its_place_or_says_that_none_is_at_hand(
    verdicts: dict[str, Verdict],
) -> None:
    claims = [claim for claim in CLAIMS.values() if not claim.id.startswith("H")]
    for claim in claims:
        text = ledger.entry(claim, verdicts[claim.id])
        shown = f"“{claim.quote.get('text')}” (" in text
        assert shown == ("No wording of the original" not in text), claim.id


@pytest.mark.parametrize(
    ("quote", "complaint"),
    [
        ({}, "expected `text`"),
        ({"text": "a", "language": "zh", "missing": "b"}, "alone"),
        ({"text": "a", "language": "xx", "translation": "b"}, "language"),
        ({"text": "w " * 16, "language": "es", "translation": "b"}, "16 words"),
        ({"text": "损" * 31, "language": "zh", "translation": "b"}, "31 Chinese"),
        ({"text": "a", "language": "zh"}, "translation"),
        ({"text": "a", "language": "fr", "translation": "b"}, "address"),
    ],
)
def test_a_quote_without_its_due_is_refused(quote: dict[str, str], complaint: str) -> None:
    claim = dataclasses.replace(CLAIMS["43"], quote=quote)
    with pytest.raises(LedgerError, match=complaint):
        ledger._check_quote(claim, SOURCES)


def test_a_wording_seen_in_the_document_alone_claims_no_address(
    verdicts: dict[str, Verdict],
) -> None:
    file = SOURCES["fr"]["file"]
    text = ledger.entry(CLAIMS["55"], verdicts["55"])
    assert f"(the document's file `{file}`): Go with small kernel sizes." in text
    assert "http" not in text
    assert "http" in ledger.entry(CLAIMS["26"], verdicts["26"])  # seen in the public copy


def test_a_document_that_no_source_names_is_no_place() -> None:
    claim = CLAIMS["55"]
    without = {**SOURCES, "fr": {k: v for k, v in SOURCES["fr"].items() if k != "file"}}
    with pytest.raises(LedgerError, match="`file`"):
        ledger._check_quote(claim, without)


def test_a_wording_in_two_parts_shows_and_checks_both(verdicts: dict[str, Verdict]) -> None:
    claim = CLAIMS["37"]
    text = ledger.entry(claim, verdicts["37"])
    assert claim.quote["text"] in text and claim.continued["text"] in text
    long = dataclasses.replace(claim, continued={**claim.continued, "text": "w " * 16})
    with pytest.raises(LedgerError, match="16 words"):
        ledger._check_quote(long, SOURCES)


def test_emphasis_on_the_page_is_never_broken_by_a_stray_asterisk(
    verdicts: dict[str, Verdict],
) -> None:
    for verdict in verdicts.values():
        assert "*" not in verdict.condition


def test_a_remark_tells_how_to_read_a_verdict() -> None:
    claim = CLAIMS["51"]
    assert f"**How to read this.** {claim.remark}" in ledger.entry(claim, ledger.verdict_of(claim))


def test_the_page_counts_every_claim_its_wordings_and_the_slips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import nbformat

    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    names: dict = {}
    for cell in nbformat.read("notebooks/derivations/ledger.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)  # its assertions hold the counts to the data
    assert len(names["claims"]) == sum(not name.startswith("H") for name in names["verdicts"])
    assert names["document"] and names["slips"]
