"""The gain correction of a whole row: one factor on its scales, so that the row answers its inputs as loudly as before.

With w a row, v its stored values and H the inputs' moments, the factor is f = w H w' / w H v', which makes the part of
the output along the original one as large as it was: w H (f v)' = w H w'. Rounding on a grid shrinks it a little in
every layer, and shrinkage adds up over a model where errors of no common sign do not (research/09, conclusion 3). The
least-squares factor w H v' / v H v' lowers the layer's error more and the model's less: fitting all scales of a row by
least squares made plans of GPTQ worse (docs/benchmarks.md).
"""

from __future__ import annotations

import numpy as np

from quantizers.base import Float32Matrix, Quantized
from quantizers.hessian import Float64
from quantizers.rtn import GAIN_LIMITS, stored_scale

#: Magnitudes up to which a float16 scale may grow.
_MOST = 65504.0


class Gain:
    """One factor a row, within GAIN_LIMITS."""

    def improve(self, weight: Float32Matrix, value: Quantized, hessian: Float64) -> Quantized:
        """See quantizers.compensation.Compensator. Codes and zero points stay; one scale a tensor stays too."""
        if value.format.tensor or not weight.size:
            return value
        pulled = weight.astype(np.float64) @ hessian
        wanted = np.einsum("ri,ri->r", pulled, weight)
        found = np.einsum("ri,ri->r", pulled, value.dequantize())
        factor = np.clip(np.divide(wanted, found, out=np.ones_like(wanted), where=found > 0), *GAIN_LIMITS)
        scales = value.scales.astype(np.float64) * factor[:, None]
        if value.format.scale == "F16":  # a row whose scales would not fit keeps its own
            fits = np.abs(scales).max(axis=1, initial=0) <= _MOST
            scales = np.where(fits[:, None], scales, value.scales)
        return Quantized(
            value.codes, stored_scale(scales.astype(np.float32), value.format, "weight"), value.zeros, value.format
        )
