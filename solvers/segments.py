"""`segments`: SAQ's joint choice of segment borders and bits, exact dynamic programming (research/02 section 7c).

Dimensions come in blocks of equal length, sorted by variance. A segment is a run of blocks at one number of bits b and
costs dims * b + overhead bits; its error is (sum of its variances) * base^-b. Zero bits only for the last segment: the
dropped tail. The base is a named objective, because inner products and reconstruction want different ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidProblem, InvalidSetting, OutOfResources, UnknownName

#: error = variance * base^-bits: relative inner-product error (SAQ's own), or squared error of the vector.
OBJECTIVES: Mapping[str, float] = {"inner-product": 2.0, "reconstruction": 4.0}
#: Cells of the table (segments x blocks x bits of budget) that fit in memory with room to spare.
CELLS = 1 << 26
#: Errors this close are equal: they are sums of the same numbers in another order.
ROUNDING = 1e-12
WIDTHS = tuple(range(1, 14))


@dataclass(frozen=True)
class Segment:
    """Blocks start .. stop-1 at `bits` bits a dimension."""

    start: int
    stop: int
    bits: int


@dataclass(frozen=True)
class Segmentation:
    """segments in order; error of the objective; spent: bits a vector, overhead included; errors: best by count."""

    segments: tuple[Segment, ...]
    error: float
    spent: int
    errors: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class _Layout:
    """Costs in units of `unit` bits: a block at b bits costs b * block, a segment `overhead` more."""

    prefix: NDArray[np.float64]
    block: int
    overhead: int
    unit: int
    columns: int
    most: int
    base: float
    widths: tuple[int, ...]

    @property
    def blocks(self) -> int:
        return len(self.prefix) - 1

    def error(self, start: int, stop: int, bits: int) -> float:
        return float((self.prefix[stop] - self.prefix[start]) * self.base**-bits)

    def price(self, blocks: int, bits: int) -> int:
        return blocks * bits * self.block + self.overhead


def segment(
    spread: Any,
    budget: int,
    *,
    block: int = 64,
    overhead: int = 64,
    widths: Sequence[int] = WIDTHS,
    most: int | None = None,
    objective: str = "inner-product",
    tolerance: float = 0.01,
) -> Segmentation:
    """The fewest segments whose error is within `tolerance` of the least.

    spread: (blocks,) sum of the variances of each block of `block` dimensions, finite, >= 0. budget: bits a vector, at
    least `overhead` (SAQ: bits * dims + overhead, one segment's overhead being free). most: segments at most. Raises
    InvalidProblem, InvalidSetting, UnknownName (objective) and OutOfResources (a table too large).
    """
    layout = _layout(np.asarray(spread, np.float64), budget, block, overhead, widths, most, objective)
    if not tolerance >= 0:
        raise InvalidSetting("the tolerance must not be negative", got=repr(tolerance))
    error, back = _table(layout)
    finals = {count: float(value) for count, value in enumerate(error[-1, :, -1]) if np.isfinite(value)}
    bound = min(finals.values()) * (1 + tolerance + ROUNDING)
    count = min(n for n, value in finals.items() if value <= bound)
    found = _trace(layout, back, count)
    spent = sum(layout.price(s.stop - s.start, s.bits) for s in found) * layout.unit
    return Segmentation(found, finals[count], spent, finals)


def _layout(
    spread: NDArray[np.float64],
    budget: int,
    block: int,
    overhead: int,
    widths: Sequence[int],
    most: int | None,
    objective: str,
) -> _Layout:
    if spread.ndim != 1 or not len(spread) or not np.isfinite(spread).all() or (spread < 0).any():
        raise InvalidProblem("variances must be a vector of finite numbers >= 0", got=f"shape {spread.shape}")
    if objective not in OBJECTIVES:
        raise UnknownName("there is no such objective", expected=", ".join(OBJECTIVES), got=objective[:40])
    if (
        block < 1
        or overhead < 0
        or not widths
        or min(widths) < 1
        or max(widths) > 64
        or (most is not None and most < 1)
    ):
        raise InvalidSetting("block, overhead, widths or most out of range", expected="block >= 1, widths in 1 .. 64")
    if budget < overhead:
        raise InvalidSetting("not even one empty segment fits", expected=f"at least {overhead} bits", got=str(budget))
    unit = math.gcd(block, overhead)
    most = len(spread) if most is None else min(most, len(spread))
    dearest = len(spread) * max(widths) * block + most * overhead
    columns = min(budget, dearest) // unit + 1
    if (most + 1) * (len(spread) + 1) * columns > CELLS:
        raise OutOfResources(
            "the table of segments is too large",
            expected=f"at most {CELLS} cells",
            got=f"{most + 1} x {len(spread) + 1} x {columns}",
            hint="take larger blocks, or allow fewer segments",
        )
    prefix = np.append(0.0, np.cumsum(spread))
    base = OBJECTIVES[objective]
    return _Layout(prefix, block // unit, overhead // unit, unit, columns, most, base, tuple(sorted(set(widths))))


def _table(layout: _Layout) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """error[i, n, u]: least error of the first i blocks in n segments within u; back: length * 128 + bits of the last.

    All counts of segments move together: one array operation for each (start, length, bits).
    """
    shape = (layout.blocks + 1, layout.most + 1, layout.columns)
    error, back = np.full(shape, np.inf), np.zeros(shape, np.int32)
    error[0, 0] = 0.0
    for start in range(layout.blocks):
        for stop in range(start + 1, layout.blocks + 1):
            for bits in (*((0,) if stop == layout.blocks else ()), *layout.widths):
                price = layout.price(stop - start, bits)
                if price >= layout.columns:
                    break
                value = error[start, :-1, : layout.columns - price] + layout.error(start, stop, bits)
                place, mark = error[stop, 1:, price:], back[stop, 1:, price:]
                better = value < place
                place[better] = value[better]
                mark[better] = (stop - start) * 128 + bits
    return error, back


def _trace(layout: _Layout, back: NDArray[np.int32], count: int) -> tuple[Segment, ...]:
    found: list[Segment] = []
    stop, left = layout.blocks, layout.columns - 1
    for n in range(count, 0, -1):
        length, bits = divmod(int(back[stop, n, left]), 128)
        found.append(Segment(stop - length, stop, bits))
        stop, left = stop - length, left - layout.price(length, bits)
    return tuple(reversed(found))
