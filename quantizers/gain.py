"""The gain correction of a whole row: one factor on its scales, so that the row answers its inputs as loudly as before.

With w a row, v its stored values and H the inputs' moments, the factor is f = w H w' / w H v', which makes the part of
the output along the original one as large as it was: w H (f v)' = w H w'. Rounding on a grid shrinks it a little in
every layer, and shrinkage adds up over a model where errors of no common sign do not (research/09, conclusion 3). The
least-squares factor w H v' / v H v' lowers the layer's error more and the model's less: fitting all scales of a row by
least squares made plans of GPTQ worse (docs/benchmarks.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import IntFormat
from quantizers.arithmetic import arithmetic
from quantizers.base import Float32Matrix, Mixed, Quantized
from quantizers.hessian import Float64
from quantizers.rtn import GAIN_LIMITS, stored_scale

#: Magnitudes up to which a float16 scale may grow.
_MOST = 65504.0


class Gain:
    """One factor a row, within GAIN_LIMITS."""

    def improve(self, weight: Float32Matrix, value: Quantized, hessian: Float64) -> Quantized:
        """See quantizers.compensation.Compensator. Codes and zero points stay; one scale a tensor stays too."""
        if not weight.size:
            return value
        return _louder(value, factors(weight, value.dequantize(), hessian)[:, None])

    def improve_mixed(self, weight: Float32Matrix, value: Mixed, hessian: Float64) -> Mixed:
        """The same for a matrix cut where a scale belongs to one row: into blocks of columns, or groups."""
        if not weight.size:
            return value
        cut, choice = value.format.cut(value.shape), value.format.line_choice(value.shape)
        found = factors(weight, value.dequantize(), hessian)[:, None]
        pieces = []
        for number, piece in enumerate(value.pieces):
            if isinstance(piece, Quantized):
                groups = -(-value.shape[1] // piece.format.group) if piece.format.group else 1
                of_lines = cut.to_lines(np.broadcast_to(found, (value.shape[0], groups)), value.shape)
                piece = _louder(piece, of_lines[choice == number])
            pieces.append(piece)
        return Mixed(tuple(pieces), value.shape, value.format)


def factors(weight: Float32Matrix, dense: NDArray[np.floating[Any]], hessian: Float64) -> Float64:
    """(out,) w H w' / w H v' of rows w and stored values v, within GAIN_LIMITS; 1 where w H v' is not positive."""
    pulled = arithmetic().product(weight, hessian)
    wanted = np.einsum("ri,ri->r", pulled, weight)
    found = np.einsum("ri,ri->r", pulled, dense)
    gains: Float64 = np.clip(np.divide(wanted, found, out=np.ones_like(wanted), where=found > 0), *GAIN_LIMITS)
    return gains


def louder(scales: NDArray[Any], gains: Float64, format: IntFormat) -> NDArray[Any]:
    """Scales times `gains`, which broadcast, as the format stores them; a line that would not fit keeps its own."""
    found = scales.astype(np.float64) * gains
    if format.scale == "F16":
        fits = np.abs(found).max(axis=1, initial=0) <= _MOST
        found = np.where(fits[:, None], found, scales)
    return stored_scale(found.astype(np.float32), format, "weight")


def _louder(value: Quantized, gains: Float64) -> Quantized:
    if value.format.tensor:
        return value
    return Quantized(value.codes, louder(value.scales, gains, value.format), value.zeros, value.format)
