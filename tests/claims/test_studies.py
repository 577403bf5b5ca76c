"""Every check of every committed study can be made, before any of it has run."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hand_made import CE, place, records

from lossatlas.claims import judge, quantities
from lossatlas.experiments.study import labels, load_study, study_names
from lossatlas.statistics.paired import paired_differences

FOLDER = Path(__file__).resolve().parents[2] / "studies"
#: Its predictions are told on its page, which is older than checks.
WITHOUT_CHECKS = {"begin"}
STUDIES = [name for name in study_names(FOLDER) if load_study(name, FOLDER).predictions]


def made_up(study):
    """Records of a study as if all of it had run."""
    parts = []
    for dataset, model in itertools.product(study.datasets, study.models):
        columns = dict.fromkeys(quantities.OF_RUNS.values(), 0.5) | dataset.factors | model.factors
        columns |= {"began": True, "oracle_offset": 0.0, "offsets_tuned": "[0.0]"}
        losses = labels(study.losses)
        scores = {
            loss: {rule: dice - 0.01 * rank for rule, dice in CE.items()}
            for rank, loss in enumerate(losses)
        }
        parts.append(place(dataset.label, scores, model.label, **columns))
    return records(
        *parts,
        study=study.study,
        losses=[{"label": each.label, "name": each.name} for each in study.losses],
        pool=study.pool,
        smallest_effect=study.smallest_effect,
        predictions=[each.model_dump(by_alias=True) for each in study.predictions],
    )


@pytest.mark.parametrize("name", STUDIES)
def test_the_judge_can_make_every_check_of_a_study(name, monkeypatch):
    monkeypatch.setattr(quantities, "Scores", Quick)
    study = load_study(name, FOLDER)
    for prediction, judgement in zip(study.predictions, judge.judge(made_up(study)), strict=True):
        assert judgement.outcome in ("holds", "fails", "open")
        for check, found in zip(prediction.holds, judgement.checks.values(), strict=True):
            assert set(check.also) <= set(study_names(FOLDER))
            assert check.at_least is None or check.at_least <= len(found)
    if name not in WITHOUT_CHECKS:
        without = [each.text for each in study.predictions if not each.holds]
        assert not without, "say how the records decide it (key holds)"


class Quick(quantities.Scores):
    """Intervals with Student's quantiles, which resample nothing."""

    def _paired(self, tables, metric):
        of = {"metric": metric, "foreground": self.part.foreground, "method": "student"}
        return paired_differences(tables, **of)[0]
