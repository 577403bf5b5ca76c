"""Verdicts on claims follow the records of a study: each can come out either way."""

from __future__ import annotations

import functools
import json
import re

import imbalance_cases as cases
import pytest

from lossatlas.analysis import records, verdicts
from lossatlas.analysis.imbalance import Imbalance
from lossatlas.analysis.records import RecordsError
from lossatlas.cli import main
from lossatlas.theory import ledger

THREE = (0.3, 0.1, 0.01)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders of records by the story that they tell; made once each."""

    @functools.cache
    def folder(half, tuned=None, **options):
        options = {"fractions": THREE, "images": 8} | options
        path = tmp_path_factory.mktemp("results") / "imbalance"
        return cases.write_imbalance(path, half=half, tuned=tuned or half, **options)

    return folder


@pytest.fixture(scope="module")
def found(written):
    """Findings and reasons by story."""

    @functools.cache
    def of(half, tuned=None, **options):
        folder = written(half, tuned, **options)
        return verdicts.of_study(Imbalance(records.load(folder), draws=150))

    return of


def weights_suffice(loss, fraction):
    """Weighted cross-entropy at ½ is where a tuned threshold brings the others."""
    return 0.75 if loss == "weighted_ce" else 0.6


def inverse_behind(loss, fraction):
    """Focal loss with inverse-frequency weights is behind the one without."""
    return 0.5 if loss == "focal_inverse" else 0.7


def inverse_behind_when_rare(loss, fraction):
    return inverse_behind(loss, fraction) if fraction < 0.05 else 0.7


def half_closed(loss, fraction):
    """Tuning closes a fifth of what `overlap_ahead` leaves open at ½."""
    return cases.overlap_ahead(loss, fraction) + (0.04 if loss not in cases.OVERLAP else 0.0)


def narrow_dice(loss, fraction, lr):
    return 0.8 if lr <= (0.001 if loss == "dice" else 0.01) else 0.2


def narrow_dice_when_rare(loss, fraction, lr):
    return narrow_dice(loss, fraction, lr) if fraction < 0.05 else 0.8


def calibrated_dice(loss, fraction):
    return 0.001 if loss == "dice" else 0.02


@pytest.mark.parametrize(
    ("claim", "said", "half", "tuned", "options"),
    [
        ("H4", "true", cases.only_a_threshold, cases.all_alike, {}),
        ("H4", "false", cases.overlap_ahead, half_closed, {}),
        ("H4", "undecided", cases.all_alike, None, {}),
        ("4", "false", cases.all_alike, None, {}),
        ("4", "true", cases.all_alike, None, {"rate_score": narrow_dice}),
        ("4", "conditional", cases.all_alike, None, {"rate_score": narrow_dice_when_rare}),
        ("5", "conditional", cases.overlap_ahead, None, {}),
        ("5", "true", cases.overlap_ahead, None, {"ece": calibrated_dice}),
        ("5", "false", cases.ce_ahead, None, {}),
        ("7", "conditional", cases.only_a_threshold, cases.all_alike, {}),
        ("7", "true", cases.overlap_ahead, None, {}),
        ("7", "false", cases.all_alike, None, {}),
        ("8", "true", weights_suffice, weights_suffice, {}),
        ("8", "false", cases.overlap_ahead, None, {}),
        ("8", "conditional", cases.only_a_threshold, cases.all_alike, {}),
        ("18", "true", cases.all_alike, None, {}),
        ("18", "false", inverse_behind, None, {}),
        ("18", "conditional", inverse_behind_when_rare, None, {}),
        ("27", "true", cases.ce_ahead, None, {}),
        ("27", "false", cases.overlap_ahead, None, {}),
        ("27", "conditional", cases.only_a_threshold, cases.all_alike, {}),
    ],
)
def test_a_verdict_follows_the_records(found, claim, said, half, tuned, options):
    finding = found(half, tuned, **options)[0][claim]
    assert finding.verdict == said
    assert finding.because
    if said == "conditional":
        assert re.search("1\xa0%|everywhere", finding.condition)
        assert re.search("true.*(false|open)|conditional", finding.text)
    # the numbers behind it are kept, a row a place
    assert all(check.where and check.found for c in finding.checks.values() for check in c)


def test_a_story_for_each_claim_with_each_outcome_that_matters():
    """Every claim that these records can settle was seen to come out two ways above."""
    marks = test_a_verdict_follows_the_records.pytestmark[0].args[1]
    seen = {}
    for claim, said, *_ in marks:
        seen.setdefault(claim, set()).add(said)
    assert set(seen) == set(verdicts._CLAIMS)
    assert all({"true", "false"} <= outcomes for outcomes in seen.values())


def test_the_numbers_of_a_verdict_are_those_of_the_runs(found, written):
    folder = written(cases.overlap_ahead)
    runs = records.load(folder).runs
    rarest = runs[runs.dataset == "d"].groupby("loss").foreground_dice.mean()
    finding = found(cases.overlap_ahead)[0]["7"]
    assert f"+{rarest.dice - rarest.ce:.3f} [" in finding.because
    assert "n = 8 seeds × 8 test images" in finding.because


def test_a_verdict_that_fails_at_one_place_names_it_down_to_the_ledger(written, monkeypatch):
    """One place refutes a general claim; the reader sees that the others are open."""
    one = verdicts.Check("3\xa0%", False, "+0.1"), verdicts.Check("1\xa0%", None, "+0.0")
    finding = verdicts.Finding("false", "Numbers.", "", {"x": [*one]}, verdicts.located(one))
    monkeypatch.setattr(verdicts, "of_study", lambda study: ({"7": finding}, {}))
    folder = written(cases.all_alike)
    path = verdicts.write(folder)
    claim = next(claim for claim in ledger.load()[1] if claim.id == "7")
    verdict = ledger.verdict_of(claim, folder.parent)
    assert verdict.verdict == "false" and verdict.said == "false at 3\xa0%, open elsewhere"
    assert "[false at 3\xa0%, open elsewhere]{.verdict}" in ledger.entry(claim, verdict)
    assert "verdict-false" in ledger.entry(claim, verdict)  # what the filter reads
    assert "  7  false at 3\xa0%, open elsewhere" in verdicts.describe(path)
    assert "**false at 3\xa0%, open elsewhere**" in verdicts.page(None)
    assert "(false at 3\xa0%, open elsewhere)" in verdicts.failing(None)


def test_dice_s_stability_is_said_of_adamw_alone_and_counts_what_diverged(found):
    finding = found(cases.all_alike)[0]["4"]
    assert finding.condition.startswith("Under AdamW only: plain gradient descent is not part")
    assert "Runs that diverged: 0 against 0" in finding.because
    ended = frozenset({("dice", 0.01, 0), ("dice", 0.01, 1)})
    other = found(cases.all_alike, diverged=ended)[0]["4"]
    assert "Runs that diverged: 2 against 0" in other.because and other.verdict != "false"


# ---------------------------------------------------------------- what cannot be settled


def test_a_claim_whose_runs_are_missing_awaits_them_and_says_how_many(found):
    settled, awaiting = found(cases.all_alike, missing=frozenset({("dice", 0.1, 3)}))
    assert set(settled) == {"18"}  # it compares other losses
    assert "1 of the 48 runs that it needs are missing" in awaiting["7"]
    assert "1 of the 144 runs that it needs are missing" in awaiting["H4"]


def test_a_claim_about_a_loss_that_the_study_lacks_awaits_it(found):
    losses = _Hashable({name: cases.LOSSES[name] for name in ("ce", "dice")})
    settled, awaiting = found(cases.all_alike, losses=losses)
    assert {"8", "18"} <= set(awaiting) and "7" in settled
    assert "no run of focal with weights" in awaiting["18"]


class _Hashable(dict):
    def __hash__(self):
        return hash(tuple(self))


def test_a_fall_with_the_fraction_alone_does_not_settle_whether_imbalance_is_solved(found):
    settled, awaiting = found(lambda loss, fraction: 0.8 if fraction > 0.2 else 0.5)
    assert "23" not in settled and "fewer objects" in awaiting["23"]


def test_a_study_of_another_kind_has_no_verdicts(folder):
    with pytest.raises(RecordsError, match="no verdicts are computed from the study 'quick'"):
        verdicts.write(folder)
    assert not (folder / "verdicts.json").exists()


# ---------------------------------------------------------------- the file, and the ledger


def test_every_claim_that_awaits_the_study_is_settled_or_says_why_not(found):
    awaited = {claim.id for claim in ledger.load()[1] if claim.study == "imbalance"}
    settled, awaiting = found(cases.only_a_threshold, cases.all_alike)
    assert awaited <= set(settled) | set(awaiting)
    assert awaited & set(settled) == {"H4", "7", "8", "27"}


def test_the_ledger_reads_what_was_written(written, found):
    folder = written(cases.only_a_threshold, cases.all_alike)
    path = verdicts.write(folder)
    assert path == folder / "verdicts.json"
    said = {
        claim.id: ledger.verdict_of(claim, folder.parent)
        for claim in ledger.load()[1]
        if claim.study == "imbalance"
    }
    assert {claim: verdict.verdict for claim, verdict in said.items()} == {
        **{"H4": "true", "7": "conditional", "8": "conditional"},
        **{"23": "awaiting", "27": "conditional"},
    }
    assert "n = 8 seeds" in said["7"].because and "*" not in said["7"].condition
    content = json.loads(path.read_text(encoding="utf-8"))
    checks = content["verdicts"]["7"]["checks"]["`dice` is ahead at ½"]
    assert [check["holds"] for check in checks] == [False, True]


def test_what_the_study_leaves_open_is_awaiting_for_the_ledger_with_its_numbers(written):
    folder = written(cases.all_alike)
    content = json.loads(verdicts.write(folder).read_text(encoding="utf-8"))
    entry = content["verdicts"]["H4"]
    assert entry["verdict"] == "awaiting" and entry["undecided"] is True
    assert entry["because"].startswith("The study leaves it open.")
    claim = next(claim for claim in ledger.load()[1] if claim.id == "H4")
    assert ledger.verdict_of(claim, folder.parent).verdict == "awaiting"


def test_the_same_records_give_the_same_file(written):
    folder = written(cases.all_alike)
    first = verdicts.write(folder).read_bytes()
    assert verdicts.write(folder).read_bytes() == first


def test_the_page_lists_every_claim_with_a_link_to_the_ledger(written):
    text = verdicts.page(Imbalance(records.load(written(cases.all_alike)), draws=150))
    assert "[Claim 7](#claim-7): **false**." in text
    assert "[Claim H4](#claim-h4): **undecided**." in text
    assert "[Claim 23](#claim-23): not settled here." in text


def test_the_command_writes_the_file_and_says_what_it_found(written, capsys):
    folder = written(cases.ce_ahead)
    command = ["verdicts", "imbalance", "--results-dir", str(folder.parent)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert " 27  true\n" in printed and " 23  awaiting: " in printed
    assert str(folder / "verdicts.json") in printed


def test_the_command_says_in_a_line_that_there_are_no_records(tmp_path, capsys):
    assert main(["verdicts", "imbalance", "--results-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("lossatlas: expected a study's records in")
