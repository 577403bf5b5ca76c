"""Computer algebra: what it proves, and that it refuses what is wrong."""

from __future__ import annotations

import pytest
import sympy as sp

from lossatlas.theory import ClosedFormError, by_logit, prove_equal, sigmoid_slope
from lossatlas.theory.printing import equation, latex, markdown_table
from lossatlas.theory.symbols import D, gamma, p, t


def test_the_slope_of_the_sigmoid_is_p_times_one_minus_p() -> None:
    assert sp.expand(sigmoid_slope() - (p - p**2)) == 0


def test_the_derivative_at_the_logit_goes_through_the_sigmoid() -> None:
    z = sp.Symbol("z", real=True)
    sigmoid = 1 / (1 + sp.exp(-z))
    direct = sp.diff(sigmoid**3, z).subs(z, sp.Rational(3, 7))
    chained = by_logit(p**3).subs(p, sigmoid.subs(z, sp.Rational(3, 7)))
    assert abs((direct - chained).evalf(30)) < 1e-25


def test_equal_functions_are_proved_symbolically() -> None:
    assert prove_equal((p + t) ** 2, p**2 + 2 * p * t + t**2, "square") == "symbolic"


def test_functions_that_differ_in_one_sign_are_refused() -> None:
    with pytest.raises(ClosedFormError, match="square"):
        prove_equal((p + t) ** 2, p**2 - 2 * p * t + t**2, "square")


def test_functions_that_differ_by_a_tiny_constant_are_refused() -> None:
    stated = (1 - p) ** gamma * sp.log(p)
    with pytest.raises(ClosedFormError):
        prove_equal(stated, stated + sp.Rational(1, 10**30), "focal")


def test_a_sum_is_printed_with_a_positive_term_first() -> None:
    assert latex(2 * t - D) == "2 t - D"


def test_an_equation_holds_the_printed_expression() -> None:
    assert latex(p * (1 - p)) in equation("s", p * (1 - p))


def test_a_table_without_a_row_is_refused() -> None:
    import pandas as pd

    with pytest.raises(ValueError, match="no row"):
        markdown_table(pd.DataFrame({"a": []}))


def test_a_bar_in_a_heading_or_a_cell_does_not_end_it() -> None:
    import pandas as pd

    text = markdown_table(pd.DataFrame({"|a − b|": [-0.0], "case": ["x | y"]}))
    assert text.splitlines() == [r"| \|a − b\| | case |", "|---:|:---|", r"| 0 | x \| y |"]
