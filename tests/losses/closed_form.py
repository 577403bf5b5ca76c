"""Closed-form gradients with respect to the logits, in NumPy, from the formulas of the literature.

Binary forms first: flat arrays of probabilities ``p`` and hard 0/1 targets ``t`` (all pixels valid, one group).
y = 2t - 1 is the sign, p_t the probability of the true label, S = sum p, T = sum t, I = sum p t.
Then the multiclass form: every region loss has dL/dp_ci = a_c t_ci + b_c (+ d_c p_ci), and the softmax turns
dL/dp into dL/dz = p (g - sum_k p_k g_k).
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), stable on both sides."""
    return np.where(
        z >= 0, 1 / (1 + np.exp(-np.abs(z))), np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z)))
    )


def sums(p: Array, t: Array) -> tuple[float, float, float]:
    """I, S, T."""
    return float((p * t).sum()), float(p.sum()), float(t.sum())


def ce(p: Array, t: Array) -> Array:
    """(p - t) / n."""
    return (p - t) / p.size


def focal(p: Array, t: Array, gamma: float) -> Array:
    """y (1 - p_t)^gamma (gamma p_t ln p_t + p_t - 1) / n."""
    y, pt = 2 * t - 1, np.where(t == 1, p, 1 - p)
    return y * (1 - pt) ** gamma * (gamma * pt * np.log(pt) + pt - 1) / p.size


def poly1(p: Array, t: Array, epsilon: float) -> Array:
    """-y (1 - p_t)(1 + epsilon p_t) / n."""
    y, pt = 2 * t - 1, np.where(t == 1, p, 1 - p)
    return -y * (1 - pt) * (1 + epsilon * pt) / p.size


def asymmetric_slope(
    p: Array, t: Array, gamma_positive: float, gamma_negative: float, margin: float
) -> Array:
    """dl/dp, x = (p - m)+: g+ (1-p)^(g+ - 1) ln p - (1-p)^g+ / p, and x^g- (-g- ln(1-x) / x + 1 / (1-x))."""
    positive = (
        gamma_positive * (1 - p) ** (gamma_positive - 1) * np.log(p) - (1 - p) ** gamma_positive / p
    )
    x = np.where(p > margin, p - margin, 0.5)  # any number where it is not used
    negative = x**gamma_negative * (-gamma_negative * np.log(1 - x) / x + 1 / (1 - x))
    return np.where(t == 1, positive, np.where(p > margin, negative, 0.0))


def asymmetric(p: Array, t: Array, *parameters: float) -> Array:
    """The slope times p (1-p) / n."""
    return asymmetric_slope(p, t, *parameters) * p * (1 - p) / p.size


def dice(p: Array, t: Array, smooth: float = 0.0) -> Array:
    """-p(1-p)(2t - D) / (S + T + s)."""
    inter, pred, truth = sums(p, t)
    below = pred + truth + smooth
    return -p * (1 - p) * (2 * t - (2 * inter + smooth) / below) / below


def dice_squared(p: Array, t: Array, smooth: float = 0.0) -> Array:
    """-2 p(1-p)(t - p D) / (sum p^2 + T + s), the V-Net form."""
    inter, _, truth = sums(p, t)
    below = float((p * p).sum()) + truth + smooth
    return -2 * p * (1 - p) * (t - p * (2 * inter + smooth) / below) / below


def jaccard(p: Array, t: Array, smooth: float = 0.0) -> Array:
    """Foreground -p(1-p)/U, background +p(1-p) J/U, U = S + T - I + s."""
    inter, pred, truth = sums(p, t)
    union = pred + truth - inter + smooth
    return p * (1 - p) * np.where(t == 1, -1.0, (inter + smooth) / union) / union


def tversky_parts(
    p: Array, t: Array, alpha: float, beta: float, smooth: float
) -> tuple[float, float]:
    """The index and its denominator."""
    inter, pred, truth = sums(p, t)
    below = inter + alpha * (pred - inter) + beta * (truth - inter) + smooth
    return (inter + smooth) / below, below


def tversky(p: Array, t: Array, alpha: float, beta: float, smooth: float = 0.0) -> Array:
    """Foreground -p(1-p)(1 - (1-beta) TI)/Den, background +p(1-p) alpha TI/Den."""
    index, below = tversky_parts(p, t, alpha, beta, smooth)
    return p * (1 - p) * np.where(t == 1, -(1 - (1 - beta) * index), alpha * index) / below


def focal_tversky(
    p: Array, t: Array, alpha: float, beta: float, gamma: float, smooth: float = 0.0
) -> Array:
    """Tversky's gradient times (1/gamma)(1 - TI)^(1/gamma - 1)."""
    index, _ = tversky_parts(p, t, alpha, beta, smooth)
    return tversky(p, t, alpha, beta, smooth) * (1 - index) ** (1 / gamma - 1) / gamma


def log_cosh_dice(p: Array, t: Array, smooth: float = 0.0) -> Array:
    """Dice's gradient times tanh(1 - D)."""
    inter, pred, truth = sums(p, t)
    d = (2 * inter + smooth) / (pred + truth + smooth)
    return dice(p, t, smooth) * np.tanh(1 - d)


def inverse_dice(p: Array, t: Array) -> Array:
    """+p(1-p)(2(1-t) - D_b) / (S_b + T_b): the Dice loss of the complement."""
    inter, pred, truth = sums(1 - p, 1 - t)
    below = pred + truth
    return p * (1 - p) * (2 * (1 - t) - 2 * inter / below) / below


def generalized_dice_two_classes(p: Array, t: Array) -> Array:
    """-p(1-p)[2(w1 t - w0 (1-t)) - G (w1 - w0)] / Den with respect to the margin z1 - z0."""
    i1, s1, t1 = sums(p, t)
    i0, s0, t0 = sums(1 - p, 1 - t)
    w1, w0 = 1 / t1**2, 1 / t0**2
    below = w1 * (s1 + t1) + w0 * (s0 + t0)
    g = 2 * (w1 * i1 + w0 * i0) / below
    return -p * (1 - p) * (2 * (w1 * t - w0 * (1 - t)) - g * (w1 - w0)) / below


def jaccard_steps(errors: Array, t: Array) -> Array:
    """dL/d(error) of the Lovasz extension: foreground 1/U, background I/(U(U-1)), U and I at the pixel's own rank.

    Rank by decreasing error. Before the pixel, with f foreground and b background pixels ahead of it, the union is
    T + b and the surviving intersection T - f.
    """
    order = np.argsort(-errors, kind="stable")
    truth = t.sum()
    out = np.zeros_like(errors)
    fg_ahead = bg_ahead = 0
    for i in order:
        if t[i] == 1:
            out[i] = 1.0 / (truth + bg_ahead)
            fg_ahead += 1
        else:
            union = truth + bg_ahead + 1
            inter = truth - fg_ahead
            # the step from 1 - I/(U-1) to 1 - I/U; without any foreground the first mistake costs everything
            out[i] = inter / (union * (union - 1)) if union > 1 else 1.0
            bg_ahead += 1
    return out


def lovasz_sigmoid(p: Array, t: Array) -> Array:
    """-y g_rank p(1-p)."""
    return -(2 * t - 1) * jaccard_steps(np.abs(t - p), t) * p * (1 - p)


def lovasz_hinge(z: Array, t: Array) -> Array:
    """-y g_rank where the hinge is active, 0 elsewhere."""
    errors = np.maximum(0, 1 - (2 * t - 1) * z)
    return -(2 * t - 1) * jaccard_steps(errors, t) * (errors > 0)


def through_softmax(p: Array, g: Array) -> Array:
    """dL/dz = p (g - sum_k p_k g_k) for dL/dp = g; both of shape (N, C, P)."""
    return p * (g - (p * g).sum(axis=1, keepdims=True))


def softmax_ce(p: Array, t: Array, weight: Array) -> Array:
    """w_y (p - t) / sum w_y for one-hot t of shape (N, C, P)."""
    w = (weight[None, :, None] * t).sum(axis=1, keepdims=True)
    return w * (p - t) / w.sum()


def softmax_region(
    kind: str, p: Array, t: Array, present: Array, weight: Array, **k: float
) -> Array:
    """dL/dz of the weighted mean over the present classes of a region loss on the whole batch."""
    g = np.zeros_like(p)
    for c in np.flatnonzero(present):
        pc, tc = p[:, c], t[:, c]
        inter, pred, truth = sums(pc, tc)
        if kind == "dice":
            below = pred + truth
            g[:, c] = -(2 * tc - 2 * inter / below) / below
        elif kind == "jaccard":
            union = pred + truth - inter
            g[:, c] = np.where(tc == 1, -1.0, inter / union) / union
        elif kind == "tversky":
            index, below = tversky_parts(pc, tc, k["alpha"], k["beta"], 0.0)
            g[:, c] = np.where(tc == 1, -(1 - (1 - k["beta"]) * index), k["alpha"] * index) / below
        elif kind == "lovasz_softmax":
            errors = np.abs(tc - pc)
            steps = jaccard_steps(errors.ravel(), tc.ravel()).reshape(tc.shape)
            g[:, c] = -(2 * tc - 1) * steps
        g[:, c] *= weight[c]
    return through_softmax(p, g) / weight[present].sum()
