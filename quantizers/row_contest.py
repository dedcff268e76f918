"""Several sweeps of one matrix, and of every output row the one whose output error is least.

GPTQ passes the error of every column on to columns still to come, so that weights are not rounded where they stood when
their range was chosen: a range that fits the original weights best can clip those that have moved. What a range is
worth is known after the sweep: dw H dw' of the row. Rows do not see each other, and so each may take another sweep.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import IntFormat
from quantizers.arithmetic import arithmetic
from quantizers.base import Float32Matrix
from quantizers.gain import factors, louder
from quantizers.hessian import Float64


@dataclass(frozen=True, eq=False)
class Swept:
    """What a sweep left. codes: uint8 (rows, columns), as they lie; scales, zeros, signs: (rows, groups), signs telling
    the groups that hold +-scale; lengths: (groups,) columns of each group.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[Any]
    zeros: NDArray[np.uint8]
    signs: NDArray[np.bool_]
    lengths: NDArray[np.int64]

    def dense(self) -> Float64:
        """float64 (rows, columns): the stored weights."""
        scales, zeros = self.scales.astype(np.float64), self.zeros.astype(np.float64)
        step = np.repeat(np.where(self.signs, 2 * scales, scales), self.lengths, axis=1)
        middle = np.repeat(np.where(self.signs, 0.5, zeros), self.lengths, axis=1)
        found: Float64 = (self.codes - middle) * step
        return found

    def louder(self, weight: Float32Matrix, moments: Float64, format: IntFormat) -> Swept:
        """The same codes with the gain correction of quantizers.gain."""
        gains = factors(weight, self.dense(), moments)[:, None]
        return Swept(self.codes, louder(self.scales, gains, format), self.zeros, self.signs, self.lengths)

    def errors(self, weight: Float32Matrix, moments: Float64) -> Float64:
        """float64 (rows,): dw H dw'."""
        delta = self.dense() - weight
        found: Float64 = np.einsum("ri,ri->r", arithmetic().product(delta, moments), delta)
        return found

    def where(self, mine: NDArray[np.bool_], other: Swept) -> Swept:
        """Rows of this one where `mine` (rows,), of the other elsewhere. Both are of the same formats."""
        pick = mine[:, None]
        codes, scales, zeros = (
            np.where(pick, a, b)
            for a, b in ((self.codes, other.codes), (self.scales, other.scales), (self.zeros, other.zeros))
        )
        return Swept(codes, scales, zeros, self.signs, self.lengths)


def best_rows(sweeps: Iterable[Swept], weight: Float32Matrix, moments: Float64) -> Swept:
    """Of every row the sweep with the least error, the first of equal ones. moments: (in, in), positive definite."""
    best: Swept | None = None
    least = np.full(len(weight), np.inf)
    for swept in sweeps:
        error = swept.errors(weight, moments)
        better = error < least
        best = swept if best is None else swept.where(better, best)
        least = np.minimum(error, least)
    assert best is not None
    return best
