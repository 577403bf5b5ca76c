"""The report on a study of imbalance: which loss wins as the foreground gets rare, and why."""

from lossatlas.analysis.imbalance.study import Fraction, Imbalance, Leader

__all__ = ["Fraction", "Imbalance", "Leader"]
