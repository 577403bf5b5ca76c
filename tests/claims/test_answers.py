"""The answers in the languages of the sources carry the numbers of the English ones, or give way to them."""

from __future__ import annotations

import pytest
import yaml

from lossatlas.claims import answers, ledger

CLAIM = {claim.id: claim for claim in ledger.load()[1]}["40"]


def written(folder, language="zh", **changed):
    because = ledger.verdict_of(CLAIM).because
    row = {
        "id": 40,
        "of": answers.fingerprint(CLAIM.claim),
        "claim": "CLAIM",
        "because_of": answers.fingerprint(because),
        "because": "{0} / {1}",
    }
    (folder / f"{language}.yaml").write_text(yaml.safe_dump([row | changed]))
    table = answers.page(language, folder=folder)
    return next(line for line in table.splitlines() if line.startswith("| [40]"))


def test_a_reason_has_the_numbers_of_the_english_sentence(tmp_path):
    first, second = answers.numbers_of(ledger.verdict_of(CLAIM).because)[:2]
    assert written(tmp_path).endswith(f"| CLAIM | **对** | {first} / {second} |")


def test_a_translation_of_another_english_sentence_gives_way_to_it(tmp_path):
    line = written(tmp_path, of="00000000", because_of="00000000")
    assert CLAIM.claim in line and ledger.verdict_of(CLAIM).because in line


def test_a_number_that_the_english_sentence_does_not_have_is_refused(tmp_path):
    with pytest.raises(ledger.LedgerError, match="claim 40: expected at most 2 numbers"):
        written(tmp_path, because="{5}")


def test_a_fingerprint_changes_with_the_words_and_not_with_the_numbers():
    assert answers.fingerprint("Dice 0.81 of 2e-05") == answers.fingerprint("Dice 0.92 of 1.5e-14")
    assert answers.fingerprint("Dice 0.81") != answers.fingerprint("IoU 0.81")


@pytest.mark.parametrize("language", answers.SOURCES)
def test_no_reason_is_left_in_english(language):
    table = answers.page(language)
    reasons = {
        claim.id: ledger.verdict_of(claim).because
        for claim in ledger.load()[1]
        if claim.kind != "experiment"
    }
    assert [name for name, reason in reasons.items() if reason.replace("|", "\\|") in table] == []


def test_spanish_numbers_have_a_decimal_comma():
    line = next(x for x in answers.page("es").splitlines() if x.startswith("| [11]"))
    assert "0,998" in line and "0.998" not in line
