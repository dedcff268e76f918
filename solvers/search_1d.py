"""SliM-LLM's search in one dimension: as many blocks at N-1 bits as at N+1, the rest at N (research/01 section 3).

Two pointers walk inwards from both ends of the blocks sorted by salience: the p least salient take N-1 bits, the p
most salient N+1, so the mean is N for every p. A callback scores each plan (SliM-LLM: KL of the layer's outputs);
uniform, p = 0, is always scored, so the answer is never worse than uniform.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.core.balance import dealt
from bitwright.core.errors import InvalidProblem, InvalidSetting, NotFinite
from bitwright.core.problem import IntArray

Score = Callable[[IntArray], float]


@dataclass(frozen=True, eq=False)
class Found:
    """bits (k,) of each block; moved: blocks at N-1, and as many at N+1; scores: by `moved`, every plan scored."""

    bits: IntArray
    moved: int
    score: float
    scores: Mapping[int, float]


def balanced(salience: Any, width: int, moved: int) -> IntArray:
    """(k,) bits: width - 1 for the `moved` least salient, width + 1 for the `moved` most salient, else width."""
    return width + dealt(salience, moved, moved)


def search(salience: Any, score: Score, *, width: int, calls: int | None = None) -> Found:
    """The plan of least score among p = 0 .. k // 2 (the fewest moved among equals).

    salience: (k,) finite, one number a block of equal size. score: plan -> finite number, less is better. calls: at
    most so many plans are scored (>= 2): an even grid with both ends first, then the unscored middle of the wider gap
    beside the best; None scores every p. Raises InvalidProblem, InvalidSetting, and NotFinite for a NaN or inf score.
    """
    salience = np.asarray(salience, np.float64)
    if salience.ndim != 1 or not len(salience) or not np.isfinite(salience).all():
        raise InvalidProblem("salience must be a vector of finite numbers", got=f"shape {salience.shape}")
    if width < 2:
        raise InvalidSetting("blocks at one bit less would vanish", expected="width >= 2", got=str(width))
    if calls is not None and calls < 2:
        raise InvalidSetting("too few calls", expected="calls >= 2", got=str(calls))
    last = len(salience) // 2
    allowed = last + 1 if calls is None else min(calls, last + 1)
    scores: dict[int, float] = {}

    def visit(moved: int) -> None:
        value = float(score(balanced(salience, width, moved)))
        if not math.isfinite(value):
            raise NotFinite("a plan has no finite score", got=f"{value!r} with {moved} blocks moved each way")
        scores[moved] = value

    for moved in _grid(last, allowed if allowed > last else max(2, (allowed + 1) // 2)):
        visit(moved)
    while len(scores) < allowed:
        visit(_next(scores))
    best = _best(scores)
    return Found(balanced(salience, width, best), best, scores[best], dict(sorted(scores.items())))


def _grid(last: int, count: int) -> list[int]:
    """`count` of 0 .. last, evenly, both ends among them."""
    return sorted({round(i * last / max(1, count - 1)) for i in range(count)})


def _best(scores: Mapping[int, float]) -> int:
    return min(scores, key=lambda moved: (scores[moved], moved))


def _next(scores: Mapping[int, float]) -> int:
    """The middle of the wider unscored gap beside the best plan; where there is none, of the widest gap of all."""
    known, best = sorted(scores), _best(scores)
    gaps = [(b - a, a) for a, b in itertools.pairwise(known) if b - a > 1]
    beside = [gap for gap in gaps if best in (gap[1], gap[0] + gap[1])]
    wide, start = max(beside or gaps, key=lambda gap: (gap[0], -gap[1]))
    return start + wide // 2
