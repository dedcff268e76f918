"""The gain correction of a whole row: one factor on its scales, so that the row answers its inputs as loudly as before.

With w a row, v its stored values and H the inputs' moments, the factor is f = w H w' / w H v', which makes the part of
the output along the original one as large as it was: w H (f v)' = w H w'. Rounding on a grid shrinks it a little in
every layer, and shrinkage adds up over a model where errors of no common sign do not (research/09, conclusion 3). The
least-squares factor w H v' / v H v' lowers the layer's error more and the model's less: fitting all scales of a row by
least squares made plans of GPTQ worse (docs/benchmarks.md).
"""

from __future__ import annotations

import numpy as np

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
        return _louder(value, _factors(weight, value.dequantize(), hessian)[:, None])

    def improve_mixed(self, weight: Float32Matrix, value: Mixed, hessian: Float64) -> Mixed:
        """The same for a matrix cut where a scale belongs to one row: into blocks of columns, or groups."""
        if not weight.size:
            return value
        cut, choice = value.format.cut(value.shape), value.format.line_choice(value.shape)
        factors = _factors(weight, value.dequantize(), hessian)[:, None]
        pieces = []
        for number, piece in enumerate(value.pieces):
            if isinstance(piece, Quantized):
                groups = -(-value.shape[1] // piece.format.group) if piece.format.group else 1
                of_lines = cut.to_lines(np.broadcast_to(factors, (value.shape[0], groups)), value.shape)
                piece = _louder(piece, of_lines[choice == number])
            pieces.append(piece)
        return Mixed(tuple(pieces), value.shape, value.format)


def _factors(weight: Float32Matrix, dense: Float32Matrix, hessian: Float64) -> Float64:
    """(out,) w H w' / w H v', within GAIN_LIMITS; 1 where w H v' is not positive."""
    pulled = weight.astype(np.float64) @ hessian
    wanted = np.einsum("ri,ri->r", pulled, weight)
    found = np.einsum("ri,ri->r", pulled, dense)
    factors: Float64 = np.clip(np.divide(wanted, found, out=np.ones_like(wanted), where=found > 0), *GAIN_LIMITS)
    return factors


def _louder(value: Quantized, factors: Float64) -> Quantized:
    """The same codes with scales times `factors`, which broadcast to the scales."""
    if value.format.tensor:
        return value
    scales = value.scales.astype(np.float64) * factors
    if value.format.scale == "F16":  # a line whose scales would not fit keeps its own
        fits = np.abs(scales).max(axis=1, initial=0) <= _MOST
        scales = np.where(fits[:, None], scales, value.scales)
    return Quantized(
        value.codes, stored_scale(scales.astype(np.float32), value.format, "weight"), value.zeros, value.format
    )
