"""Advice for one's own masks: what they are like, the nearest studied data set, and the decisions.

>>> from lossatlas.advise import advise
>>> advise("my/folder")  # doctest: +SKIP
"""

from lossatlas.advise.advice import advise
from lossatlas.advise.facts import measure

__all__ = ["advise", "measure"]
