"""The symbols that every derivation shares.

A derivation looks at one pixel: ``z``, ``p`` and ``t`` are that pixel's. What the other pixels
contribute to a sum carries the suffix ``_rest``, so that a derivative sees how the pixel itself
moves the sum: S = S_rest + p and I = I_rest + p·t.
"""

from __future__ import annotations

import sympy as sp

z = sp.Symbol("z", real=True)  # logit
p = sp.Symbol("p", positive=True)  # probability, sigmoid(z)
t = sp.Symbol("t", nonnegative=True)  # target, hard or soft
n = sp.Symbol("N", positive=True, integer=True)  # pixels that are averaged over

S = sp.Symbol("S", positive=True)  # Σp, or Σp² in the squared form
T = sp.Symbol("T", positive=True)  # Σt, or Σt²
I = sp.Symbol("I", nonnegative=True)  # Σpt  # noqa: E741 - the field's letter
S_rest = sp.Symbol("S_rest", nonnegative=True)
I_rest = sp.Symbol("I_rest", nonnegative=True)

D = sp.Symbol("D", nonnegative=True)  # soft Dice coefficient
J = sp.Symbol("J", nonnegative=True)  # soft Jaccard coefficient
eps = sp.Symbol("varepsilon", nonnegative=True)  # smoothing constant

W = sp.Symbol("W", positive=True)  # Σw over pixels
A = sp.Symbol("A", nonnegative=True)  # Σ|p−t|
A_rest = sp.Symbol("A_rest", nonnegative=True)
TI = sp.Symbol("TI", nonnegative=True)  # Tversky index
G = sp.Symbol("G", nonnegative=True)  # generalised Dice coefficient
p_t = sp.Symbol("p_t", positive=True)  # probability of the true class
y = sp.Symbol("y", real=True)  # +1 on foreground, −1 on background
phi = sp.Symbol("phi", real=True)  # signed distance to the target's boundary
H = sp.Symbol("H", nonnegative=True)  # d_T^2 + d_P^2, squared distances to both boundaries

w = sp.Symbol("w", positive=True)  # weight of the foreground class
w0 = sp.Symbol("w_0", positive=True)
w1 = sp.Symbol("w_1", positive=True)
lam = sp.Symbol("lambda", positive=True)
delta = sp.Symbol("delta", positive=True)
gamma = sp.Symbol("gamma", nonnegative=True)
alpha = sp.Symbol("alpha", positive=True)
beta = sp.Symbol("beta", positive=True)
pi = sp.Symbol("pi_f", positive=True)  # foreground fraction (not the circle's number)
q = sp.Symbol("q", positive=True)  # a prediction that is the same in every pixel
eta = sp.Symbol("eta", positive=True)  # probability that a label says foreground

#: How a symbol is typeset where SymPy's own rule would not do.
LATEX_NAMES = {
    pi: r"\pi",
    S_rest: r"S_{\mathrm{rest}}",
    I_rest: r"I_{\mathrm{rest}}",
    A_rest: r"A_{\mathrm{rest}}",
    TI: r"\mathrm{TI}",
}
