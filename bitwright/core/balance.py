"""Two pointers from both ends of a ranking: the steps of SliM-LLM's search (arXiv:2405.14917)."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitwright.core.problem import IntArray


def dealt(salience: Any, low: int, high: int) -> IntArray:
    """int64 (k,): -1 for the `low` least salient, +1 for the `high` most salient, 0 between; low + high <= k."""
    order = np.argsort(np.asarray(salience, np.float64), kind="stable")
    steps = np.zeros(len(order), np.int64)
    steps[order[:low]] -= 1
    steps[order[len(order) - high :]] += 1
    return steps


def centre(sizes: IntArray, room: int, parts: int) -> tuple[int, int]:
    """(width, surplus) around which balanced plans of `parts` equal parts spend `room`.

    sizes: (widths,) rising bytes of a part by width's number. surplus: how many more parts are dealt width + 1 than
    width - 1 in every plan; 0 where a uniform plan spends the room exactly, as when no scale were paid for; below 0
    where parts must go down to pay for the scales. Of the two widths about the room the nearer one that has both
    neighbours. (0, 0) when nothing fits.
    """
    fits = int(np.searchsorted(sizes * parts, room, side="right")) - 1
    if fits < 0:
        return 0, 0
    if fits == len(sizes) - 1:
        return fits, 0
    high = int((room - sizes[fits] * parts) // (sizes[fits + 1] - sizes[fits]))
    lower, upper = (fits, high), (fits + 1, high - parts)
    inner = [pair for pair in (lower, upper) if 0 < pair[0] < len(sizes) - 1]
    return min(inner or [lower], key=lambda pair: abs(pair[1]))
