"""Experiments: configuration → training → evaluation → record → collected tables.

Only what is light is imported here, so that the workflow and the command line start without torch;
``training``, ``collect`` and ``components`` are imported where they are used.
"""

from lossatlas.experiments.config import ConfigError, RunConfig, TrainParameters
from lossatlas.experiments.study import Study, load_study, study_names

__all__ = ["ConfigError", "RunConfig", "Study", "TrainParameters", "load_study", "study_names"]
