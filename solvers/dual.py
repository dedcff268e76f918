"""The Lagrangian dual of several limits and rules: one multiplier for each row, found by smoothed Newton steps.

The dual L(m) = sum over groups of min over formats of (loss + m.weight) - m.bound is concave and piecewise linear; with
many groups its kinks lie so close that it behaves like a smooth function. Each pass replaces a group's minimum by a
soft minimum whose temperature is a share of the group's own priced range, takes one Newton step with the covariance of
the weights as the Hessian, and lowers the share. The exact L is recorded in every pass; the best one is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import AT_LEAST
from solvers.base import Deadline
from solvers.reduce import Reduced

Floats = NDArray[np.float64]
#: Temperatures, as shares of a group's priced range: a coarse start, then finer; at most this many passes.
SHARES = (0.3, 0.3, 0.3, 0.15, 0.15, 0.08, 0.04, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001, 5e-4, 3e-4, 1e-4)
#: A multiplier rises and falls at most by these factors in one pass, so that a bad Hessian cannot throw it away.
UP, DOWN = 8.0, 64.0


@dataclass(frozen=True, eq=False)
class Rows:
    """Every limit and rule as weight . x <= bound in units of `scale`: weight (r, g, k), bound (r,), scale (r,)."""

    weight: Floats
    bound: Floats
    scale: Floats

    @staticmethod
    def of(reduced: Reduced) -> Rows:
        allowed = np.isfinite(reduced.loss)
        weights, bounds, scales = [], [], []
        for row in reduced.rows:
            sign = -1.0 if row.sense == AT_LEAST else 1.0
            weight = row.weight.astype(np.float64)
            spread = np.where(allowed, weight, -np.inf).max(axis=1) - np.where(allowed, weight, np.inf).min(axis=1)
            positive = spread[spread > 0]
            scale = float(positive.mean()) if positive.size else 1.0
            weights.append(sign * weight / scale)
            bounds.append(sign * row.bound / scale)
            scales.append(scale)
        return Rows(np.stack(weights), np.array(bounds), np.array(scales))


@dataclass(frozen=True, eq=False)
class Dual:
    """multipliers (r,) of `Rows`, the exact value L, and how many passes over the table it took."""

    multipliers: Floats
    value: float
    passes: int


def maximise(reduced: Reduced, rows: Rows, deadline: Deadline) -> Dual:
    """Best multipliers found in at most len(SHARES) passes."""
    start = _typical(reduced.loss)
    m = np.full(len(rows.bound), start / len(rows.bound))
    best = Dual(np.zeros_like(m), -np.inf, 0)
    for number, share in enumerate(SHARES, 1):
        value, gradient, hessian = _soft(reduced.loss, rows, m, share)
        if value > best.value:
            best = Dual(m.copy(), value, number)
        m = _step(m, gradient, hessian, start)
        if deadline.passed:
            break
    return Dual(best.multipliers, best.value, number)


def _typical(loss: Floats) -> float:
    """Median loss range of a group: with weights in units of their mean range, a multiplier of the right size."""
    spread = np.where(np.isfinite(loss), loss, -np.inf).max(axis=1) - loss.min(axis=1)
    positive = spread[spread > 0]
    return float(np.median(positive)) if positive.size else 1.0


def _soft(loss: Floats, rows: Rows, m: Floats, share: float) -> tuple[float, Floats, Floats]:
    """(exact L, gradient and Hessian of the smoothed L) at multipliers m."""
    price = np.tensordot(m, rows.weight, axes=1)
    value = loss + price
    least = value.min(axis=1, keepdims=True)
    finite = np.isfinite(loss)
    ranges = np.where(finite, price, -np.inf).max(axis=1) - np.where(finite, price, np.inf).min(axis=1)
    # A group whose formats all cost the same does not answer to the multipliers: any heat serves, and no curvature.
    heat = np.where(ranges > 1e-12 * float(ranges.max()), share * ranges, 1.0)
    stiff = np.where(ranges > 1e-12 * float(ranges.max()), 1 / heat, 0.0)
    soft = np.exp(-np.minimum((value - least) / heat[:, None], 700.0)) * finite
    soft /= soft.sum(axis=1, keepdims=True)
    mean = np.einsum("gk,rgk->rg", soft, rows.weight)
    gradient = mean.sum(axis=1) - rows.bound
    second = np.einsum("gk,rgk,sgk,g->rs", soft, rows.weight, rows.weight, stiff, optimize=True)
    hessian = second - np.einsum("rg,sg,g->rs", mean, mean, stiff)
    return float(least.sum()) - float(m @ rows.bound), gradient, hessian


def _step(m: Floats, gradient: Floats, hessian: Floats, start: float) -> Floats:
    """Newton ascent within a box around m: what hits the box stays there, and the rest is solved again."""
    low, high = m / DOWN, np.maximum(m, 1e-6 * start) * UP
    held = (m == 0) & (gradient <= 0)
    new = m.copy()
    for _ in range(len(m)):
        free = ~held
        if not free.any():
            break
        block = hessian[np.ix_(free, free)]
        pull = gradient[free] - hessian[np.ix_(free, held)] @ (new - m)[held]
        # Where there is no curvature the ridge sends the multiplier to the edge of its box.
        ridge = 1e-9 * max(float(np.trace(block)), float(np.abs(pull).max()) / start, 1e-200)
        wanted = m[free] + np.linalg.lstsq(block + ridge * np.eye(len(block)), pull, rcond=None)[0]
        new[free] = np.clip(wanted, low[free], high[free])
        hit = new[free] != wanted
        if not hit.any():
            break
        held[np.flatnonzero(free)[hit]] = True
    # A multiplier that keeps falling is zero: its row does not bind.
    new[(new < 1e-7 * start) & (gradient < 0)] = 0.0
    return new
