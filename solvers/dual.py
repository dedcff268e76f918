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

from bitwright.core.problem import AT_LEAST, IntArray
from solvers.base import Deadline, Pace
from solvers.reduce import Reduced

Floats = NDArray[np.float64]
#: Temperatures, as shares of a group's priced range: a coarse start, then finer; at most this many passes.
SHARES = (0.3, 0.3, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4)
#: A multiplier rises and falls at most by these factors in one pass, so that a bad Hessian cannot throw it away.
UP, DOWN = 8.0, 64.0
#: Times that a step is solved again with more multipliers held at their box.
HITS = 12


@dataclass(frozen=True, eq=False)
class Part:
    """Groups that the same rows touch: numbers of both, weight (r, g, k) of those rows there."""

    rows: IntArray
    groups: IntArray
    weight: Floats


@dataclass(frozen=True, eq=False)
class Rows:
    """Every limit and rule as weight . x <= bound in units of `scale`: weight (r, g, k), bound (r,), scale (r,).

    parts: such that each group is in one of them, with every row that is not 0 everywhere in it.
    """

    weight: Floats
    bound: Floats
    scale: Floats
    parts: tuple[Part, ...]

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
        weight = np.stack(weights)
        return Rows(weight, np.array(bounds), np.array(scales), _parts(weight))


def _parts(weight: Floats) -> tuple[Part, ...]:
    touched = (weight != 0).any(axis=2).T
    bits = np.packbits(touched, axis=1)
    # Of at most eight rows one byte a group: numbers are sorted in a tenth of the time that lists of them take.
    _, owner = np.unique(bits[:, 0] if bits.shape[1] == 1 else bits, axis=0, return_inverse=True)
    order = np.argsort(owner.reshape(-1), kind="stable")
    cut = np.searchsorted(owner.reshape(-1)[order], np.arange(1, int(owner.max()) + 1))
    found = [(np.flatnonzero(touched[g[0]]), g) for g in np.split(order, cut)]
    return tuple(Part(r, g, weight[np.ix_(r, g)]) for r, g in found)


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
    best, pace = Dual(np.zeros_like(m), -np.inf, 0), Pace(deadline)
    for number, share in enumerate(SHARES, 1):
        value, gradient, hessian = _soft(reduced.loss, rows, m, share)
        if value > best.value:
            best = Dual(m.copy(), value, number)
        m = _step(m, gradient, hessian, start)
        if not pace.another():
            break
    return Dual(best.multipliers, best.value, number)


def _typical(loss: Floats) -> float:
    """Median loss range of a group: with weights in units of their mean range, a multiplier of the right size."""
    spread = np.where(np.isfinite(loss), loss, -np.inf).max(axis=1) - loss.min(axis=1)
    positive = spread[spread > 0]
    return float(np.median(positive)) if positive.size else 1.0


def _soft(loss: Floats, rows: Rows, m: Floats, share: float) -> tuple[float, Floats, Floats]:
    """(exact L, gradient and Hessian of the smoothed L) at multipliers m, part by part: rules of one block of units
    never meet those of another."""
    value, gradient, hessian = -float(m @ rows.bound), -rows.bound, np.zeros((len(m), len(m)))
    losses = [loss[part.groups] for part in rows.parts]
    prices = [np.tensordot(m[part.rows], part.weight, axes=1) for part in rows.parts]
    ranges = [_range(own, price) for own, price in zip(losses, prices, strict=True)]
    tiny = 1e-12 * max(float(of.max()) for of in ranges)
    for part, own, price, of in zip(rows.parts, losses, prices, ranges, strict=True):
        least, first, second = _soft_part(own, part.weight, price, of, share, tiny)
        value += least
        gradient[part.rows] += first
        hessian[np.ix_(part.rows, part.rows)] += second
    return value, gradient, hessian


def _range(loss: Floats, price: Floats) -> Floats:
    finite = np.isfinite(loss)
    return np.asarray(np.where(finite, price, -np.inf).max(axis=1) - np.where(finite, price, np.inf).min(axis=1))


def _soft_part(
    loss: Floats, weight: Floats, price: Floats, ranges: Floats, share: float, tiny: float
) -> tuple[float, Floats, Floats]:
    """(sum of exact minima, gradient, Hessian) of some groups for the rows that touch them: weight (r, g, k)."""
    value = loss + price
    least = value.min(axis=1, keepdims=True)
    # A group whose formats all cost the same does not answer to the multipliers: any heat serves, and no curvature.
    heat = np.where(ranges > tiny, share * ranges, 1.0)
    stiff = np.where(ranges > tiny, 1 / heat, 0.0)
    soft = np.exp(-np.minimum((value - least) / heat[:, None], 700.0)) * np.isfinite(loss)
    soft /= soft.sum(axis=1, keepdims=True)
    softened = weight * soft
    mean, flat = softened.sum(axis=2), (len(weight), soft.size)
    second = (softened * stiff[:, None]).reshape(flat) @ weight.reshape(flat).T
    return float(least.sum()), mean.sum(axis=1), second - (mean * stiff) @ mean.T


def _covariance(block: Floats) -> Floats:
    """The block without what rounding left beside zero variances: |h_ij| <= sqrt(h_ii h_jj) (Cauchy-Schwarz)."""
    spread = np.sqrt(np.maximum(np.diag(block), 0.0))
    most = np.outer(spread, spread)
    return np.clip(block, -most, most)


def _step(m: Floats, gradient: Floats, hessian: Floats, start: float) -> Floats:
    """Newton ascent within a box around m: what hits the box stays there, and the rest is solved again."""
    low, high = m / DOWN, np.maximum(m, 1e-6 * start) * UP
    held = (m == 0) & (gradient <= 0)
    new = m.copy()
    for _ in range(min(len(m), HITS)):
        free = ~held
        if not free.any():
            break
        block = _covariance(hessian[np.ix_(free, free)])
        pull = gradient[free] - hessian[np.ix_(free, held)] @ (new - m)[held]
        # Where there is no curvature the ridge sends the multiplier to the edge of its box.
        ridge = 1e-9 * max(float(np.trace(block)), float(np.abs(pull).max()) / start, 1e-200)
        wanted = m[free] + np.linalg.solve(block + ridge * np.eye(len(block)), pull)
        new[free] = np.clip(wanted, low[free], high[free])
        hit = new[free] != wanted
        if not hit.any():
            break
        held[np.flatnonzero(free)[hit]] = True
    # A multiplier that keeps falling is zero: its row does not bind.
    new[(new < 1e-7 * start) & (gradient < 0)] = 0.0
    return new
