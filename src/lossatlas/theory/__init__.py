"""Derivations and closed-form gradients, and the claims that they settle.

Everything here checks itself: a formula that differs from its derivative by computer algebra,
from autograd of :mod:`lossatlas.losses`, or from finite differences raises
:class:`ClosedFormError`.
"""

from lossatlas.theory.calculus import (
    ClosedFormError,
    by_logit,
    by_probability,
    prove_equal,
    sigmoid_slope,
)
from lossatlas.theory.check import check
from lossatlas.theory.forms import FORMS, OVERLAP, ClosedForm, check_form, check_softmax
from lossatlas.theory.printing import equation, latex, show, tables, worst

__all__ = [
    "FORMS",
    "OVERLAP",
    "ClosedForm",
    "ClosedFormError",
    "by_logit",
    "by_probability",
    "check",
    "check_form",
    "check_softmax",
    "equation",
    "latex",
    "prove_equal",
    "show",
    "sigmoid_slope",
    "tables",
    "worst",
]
