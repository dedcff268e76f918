"""Bias correction (Nagel et al. 2019, arXiv:1906.04721, section 4.2): a layer's mean output error, taken off its bias.

With d = v - w the error of an output row and m = E[x] the mean of its inputs, rounding moves the mean of that output by
d m; the bias b - d m puts it back. The paper derives m from batch norm or measures the mean outputs; here m is the mean
over calibration tokens of the unquantized model. Weights, codes and bytes stay as they are.

On tokens whose inputs have the mean m', a shift s of the bias changes the squared error of an output by
s^2 + 2 s d m' on average, whatever their second moments: that is what the gate looks at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, Unsupported
from gpu_kernels.kernels import widen
from quantizers.base import Float32Matrix, Quantizer, Stored, float32_to_bf16
from quantizers.hessian import Float64


def bias_shift(
    quantizer: Quantizer, weight: Float32Matrix, value: Stored, *, name: str, **context: Any
) -> Float64 | None:
    """float64 (out,) to add to the bias of a layer that `quantizer` made; None from one that moves no biases."""
    own = getattr(quantizer, "bias_shift", None)
    if own is None:
        return None
    made: Float64 = own(weight, value, name=name, **context)
    return made


def mean_shift(
    weight: Float32Matrix, dense: Float32Matrix, mean: NDArray[Any] | None, held_out: NDArray[Any] | None, name: str
) -> Float64:
    """float64 (out,) to add to the bias of a layer of weights `dense` instead of `weight`; 0 where the gate says no.

    mean, held_out: (in,) mean inputs over different tokens; without one of them nothing is shifted. Raises
    InvalidCalibration.
    """
    error = dense.astype(np.float64) - weight
    fitted, other = (checked_mean(found, weight.shape[1], name) for found in (mean, held_out))
    if fitted is None or other is None:
        return np.zeros(len(error))
    shift = -(error @ fitted)
    kept: Float64 = np.where(shift * shift + 2 * shift * (error @ other) < 0, shift, 0.0)
    return kept


def checked_mean(mean: NDArray[Any] | None, columns: int, name: str) -> Float64 | None:
    """The mean in float64, or None. Raises InvalidCalibration for another shape, NaN or infinity."""
    if mean is None:
        return None
    found = np.asarray(mean, np.float64)
    if found.shape != (columns,) or not np.isfinite(found).all():
        raise InvalidCalibration(
            f"{name}: the mean of the inputs does not fit", expected=f"({columns},) finite numbers",
            got=f"{found.shape}, {int(np.count_nonzero(~np.isfinite(found)))} not finite",
        )  # fmt: skip
    return found


def shifted(bias: NDArray[Any], shift: Float64, name: str) -> NDArray[Any]:
    """A bias as it is stored (float32, float16, or uint16 that holds bfloat16 bits) with `shift` added, rounded.

    Outputs that are not shifted keep their very bits. Raises Unsupported where a number would not fit.
    """
    wide = widen(bias) if bias.dtype in (np.float16, np.uint16) else bias
    total = (wide.astype(np.float64) + shift).astype(np.float32)
    with np.errstate(over="ignore"):
        stored = float32_to_bf16(total) if bias.dtype == np.uint16 else total.astype(bias.dtype)
    moved: NDArray[Any] = np.where(shift != 0, stored, bias)
    held = widen(moved) if moved.dtype in (np.float16, np.uint16) else moved
    if not np.isfinite(held[shift != 0]).all():
        raise Unsupported(
            f"{name}: a corrected bias does not fit {bias.dtype}", expected="a finite bias",
            got=f"{np.abs(total).max():.4g}", hint="use a quantizer that leaves biases alone",
        )  # fmt: skip
    return moved
