"""Reverse water-filling: the bits that minimise sum c_i 4^-b_i subject to sum s_i b_i <= total, lo_i <= b_i <= hi_i.

The optimum is b_i = clip(0.5 log2(c_i / s_i) + t, lo_i, hi_i): every unit that is not clipped has the same loss per
weight (BAQ's equal-loss property, research/01 section 1; with sizes and a floor, Q-Palette's theorem, section 2). The
level t is the root of a piecewise linear function and is found exactly, from its sorted breakpoints.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Infeasible, InvalidProblem

Floats = NDArray[np.float64]
#: Rounding forgiven in a budget, as a share of it.
SLACK = 1e-12


@dataclass(frozen=True, eq=False)
class Water:
    """bits (n,), and the level t (inf when every unit reaches `hi` within the budget)."""

    bits: Floats
    level: float


def fill(c: Any, s: Any, total: float, lo: Any = 0.0, hi: Any = np.inf, *, base: float = 4.0) -> Water:
    """Continuous bits. c (n,) >= 0 loss at 0 bits, s (n,) > 0 weights a unit; lo, hi bits, scalar or (n,).

    total: budget in bits. base: loss = c base^-bits, 4 by theory; BAQ's code has 2^1.95 (research/01 section 1). Raises
    InvalidProblem for arrays that make no sense and Infeasible when `lo` alone exceeds the budget.
    """
    c, s = _checked(c, s)
    with np.errstate(divide="ignore"):
        return fill_offsets((np.log2(c) - np.log2(s)) / _log2(base), s, total, lo, hi)


def fill_offsets(offset: Floats, s: Floats, total: float, lo: Any = 0.0, hi: Any = np.inf) -> Water:
    """`fill` from offset = 0.5 log2(c / s), for losses outside float64's range; -inf where c = 0."""
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), s.shape) for bound in (lo, hi))
    if not (np.isfinite(total) and np.isfinite(low).all() and (high >= low).all()):
        raise InvalidProblem("the bounds on the bits make no sense", expected="finite lo <= hi and a finite total")
    least = float(s @ low)
    if least > total + SLACK * abs(total):
        raise Infeasible(
            "the fewest bits exceed the budget", expected=f"at least {least} bits", got=f"{total}", smallest_limit=least
        )
    level = _level(offset, s, total - least, low, high)
    dry = np.isneginf(offset)  # without loss: no more bits than the fewest
    return Water(np.where(dry, low, np.clip(np.where(dry, 0.0, offset) + level, low, high)), level)


def _level(offset: Floats, s: Floats, room: float, low: Floats, high: Floats) -> float:
    """The root t of sum s * (clip(offset + t, low, high) - low) = room; inf when even `high` does not use it up."""
    live = np.isfinite(offset) & (high > low)
    offset, s, low, high = offset[live], s[live], low[live], high[live]
    if not len(s) or float(s @ (high - low)) <= room:
        return math.inf
    at = np.concatenate([low - offset, high - offset])
    change = np.concatenate([s, -s])
    ended = np.isfinite(at)
    order = np.argsort(at[ended], kind="stable")
    at, slope = at[ended][order], np.cumsum(change[ended][order])
    used = np.append(0.0, np.cumsum(np.diff(at) * slope[:-1]))
    piece = int(np.searchsorted(used, max(room, 0.0), side="right")) - 1
    if not slope[piece] > 0:
        return float(at[piece])
    root = at[piece] + (max(room, 0.0) - used[piece]) / slope[piece]
    return float(min(root, at[piece + 1]) if piece + 1 < len(at) else root)


def gain(c: Any, s: Any = None) -> float:
    """Optimal loss / loss of uniform bits at the same budget, without clipping: GM / AM of the loss per weight, <= 1.

    A free predictor of what mixed precision can win here: 1 means nothing (research/01 section 1, BAQ's step 5).
    """
    c, s = _checked(c, np.ones_like(np.asarray(c, np.float64)) if s is None else s)
    if not (c > 0).all():
        return 0.0 if (c > 0).any() else 1.0
    rate = c / s
    return float(np.exp(np.average(np.log(rate), weights=s)) / np.average(rate, weights=s))


def round_bits(c: Any, s: Any, bits: Any, total: float, hi: Any = np.inf, *, base: float = 4.0) -> NDArray[np.int64]:
    """Whole bits within the budget: all floored, then one bit more where it saves most loss per bit of budget.

    Optimal among whole bits for equal sizes, because the loss is separable and convex (research/01 section 1).
    """
    c, s = _checked(c, s)
    _log2(base)
    start = np.floor(np.asarray(bits, np.float64) + SLACK).astype(np.int64)
    top = np.floor(np.broadcast_to(np.asarray(hi, np.float64), s.shape))

    def step(i: int, b: int) -> tuple[float, float] | None:
        return ((1.0 - 1.0 / base) * c[i] * base**-b, float(s[i])) if b < top[i] else None

    return _raise(start, float(total) - float(s @ start), total, step)


def round_levels(c: Any, s: Any, bits: Any, total: float, most: int = 256, *, base: float = 4.0) -> NDArray[np.int64]:
    """Whole numbers of levels (>= 1; rate log2 of it) within the budget, BAQ's finer grid: loss c / levels^log2(base).

    BAQ rounds to the nearest and lets the budget be missed; here the levels are floored and the rest is handed out. The
    same is done from the whole bits of `round_bits`, which are levels too, and the better plan is given. most: cap on
    the levels of one unit.
    """
    c, s = _checked(c, s)
    power, bits = _log2(base), np.asarray(bits, np.float64)
    floored = np.clip(np.floor(np.exp2(bits) * (1 + SLACK)), 1, most).astype(np.int64)
    whole = 1 << round_bits(c, s, np.maximum(bits, 0.0), total, math.log2(most), base=base)

    def step(i: int, m: int) -> tuple[float, float] | None:
        return (c[i] * (m**-power - (m + 1) ** -power), float(s[i] * math.log2((m + 1) / m))) if m < most else None

    plans = [_raise(m, float(total) - float(s @ np.log2(m)), total, step) for m in (floored, whole)]
    return min(plans, key=lambda levels: float(c @ levels**-power))


def _raise(
    start: NDArray[np.int64], room: float, total: float, step: Callable[[int, int], tuple[float, float] | None]
) -> NDArray[np.int64]:
    """Steps of (saving, price) in order of saving per price, while they fit; what does not fit is passed over."""
    value, slack = start.copy(), SLACK * abs(total)
    queue: list[tuple[float, int, float]] = []

    def offer(i: int) -> None:
        found = step(i, int(value[i]))
        if found is not None and found[0] > 0:
            heapq.heappush(queue, (-found[0] / found[1], i, found[1]))

    for i in range(len(value)):
        offer(i)
    while queue:
        _, i, price = heapq.heappop(queue)
        if price <= room + slack:
            value[i] += 1
            room -= price
            offer(i)
    return value


def _log2(base: float) -> float:
    if not (math.isfinite(base) and base > 1):
        raise InvalidProblem("the loss must fall with the bits", expected="base > 1", got=repr(base)[:40])
    return math.log2(base)


def _checked(c: Any, s: Any) -> tuple[Floats, Floats]:
    c, s = np.asarray(c, np.float64), np.asarray(s, np.float64)
    if c.ndim != 1 or c.shape != s.shape or not len(c):
        raise InvalidProblem("losses and sizes must be two vectors of one length", got=f"{c.shape} and {s.shape}")
    if not (np.isfinite(c).all() and (c >= 0).all() and np.isfinite(s).all() and (s > 0).all()):
        raise InvalidProblem("a loss or a size cannot be used", expected="finite losses >= 0 and finite sizes > 0")
    return c, s
