"""Compensation: other codes or scales for a quantized matrix, of the same format and bytes.

A quantizer rounds, and a compensator makes another proposal from the moments H of the inputs. Where a compensator could
fit what is peculiar to a few tokens (`judged`), a gate keeps of every output row what has the smaller error dw H' dw'
under moments H' of other tokens (`held_out`): rows are independent, so the result is never worse than the quantizer's
own there, and without such moments nothing is compensated. One number a row (`gain`) needs no gate: it raises the
errors of rows and lowers the model's, and a gate takes half of that away (docs/benchmarks.md). Bias correction (`bias`)
leaves the matrix alone and moves the layer's bias, output by output behind the same gate.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import Format, MixedFormat
from quantizers.arithmetic import arithmetic
from quantizers.base import Float32Matrix, Mixed, Quantized, Quantizer, Stored
from quantizers.bias import mean_shift
from quantizers.gain import Gain
from quantizers.gptq import Gptq
from quantizers.hessian import Float64, checked_hessian, damped
from quantizers.mixed import by_lines, quantize
from quantizers.ridge import Ridge
from quantizers.rtn import RoundToNearest

#: Share of the mean diagonal that is added to the diagonal of H: the ridge of every compensator.
RIDGE = 0.01


class Compensator(Protocol):
    """One way to make up for rounding errors."""

    def improve(self, weight: Float32Matrix, value: Quantized, hessian: Float64) -> Quantized:
        """Another matrix of value's format. hessian: positive definite, (in, in)."""
        ...


class Compensated:
    """A quantizer followed by a compensator, and by the gate where `judged`."""

    def __init__(self, name: str, base: Quantizer, compensator: Compensator, *, judged: bool) -> None:
        self.name, self._base, self._compensator, self._judged = name, base, compensator, judged
        self.options: frozenset[str] = getattr(base, "options", frozenset())

    def quantize(
        self,
        weight: Float32Matrix,
        format: Format,
        *,
        name: str = "weight",
        hessian: NDArray[Any] | None = None,
        held_out: NDArray[Any] | None = None,
        **context: Any,
    ) -> Stored:
        """See quantizers.base.Quantizer. hessian, held_out: (in, in) sums of x x' over different tokens, any scale."""
        value = self._base.quantize(weight, format, name=name, hessian=hessian, **context)
        fitted = checked_hessian(hessian, weight.shape[1], name)
        other = checked_hessian(held_out, weight.shape[1], f"{name} (held out)")
        if not isinstance(value, Quantized) or fitted is None:
            return value
        if not self._judged:
            return self._compensator.improve(weight, value, damped(fitted, RIDGE))
        if other is None or not other.any():
            return value
        return kept(weight, value, self._compensator.improve(weight, value, damped(fitted, RIDGE)), other)

    def quantize_mixed(
        self, weight: Float32Matrix, format: MixedFormat, *, name: str = "weight", **context: Any
    ) -> Mixed | Stored:
        """See quantizers.mixed: rows are compensated; so are blocks of columns and groups, by a `gain`.

        Whole columns have scales that span rows, and a gate judges whole rows: these are made as the quantizer does.
        """
        if format.granularity.startswith("row"):
            return by_lines(self, weight, format, name=name, **context)
        value = quantize(self._base, weight, format, name=name, **context)
        fitted = checked_hessian(context.get("hessian"), weight.shape[1], name)
        improve = getattr(self._compensator, "improve_mixed", None)
        if improve is None or fitted is None or format.granularity == "column" or not isinstance(value, Mixed):
            return value
        made: Mixed = improve(weight, value, damped(fitted, RIDGE))
        return made


class BiasCorrected:
    """A quantizer, and what is to be added to the bias of a layer that it made."""

    def __init__(self, name: str, base: Quantizer) -> None:
        self.name, self._base = name, base
        self.options: frozenset[str] = getattr(base, "options", frozenset())

    def quantize(self, weight: Float32Matrix, format: Format, *, name: str = "weight", **context: Any) -> Stored:
        """See quantizers.base.Quantizer."""
        return self._base.quantize(weight, format, name=name, **context)

    def quantize_mixed(
        self, weight: Float32Matrix, format: MixedFormat, *, name: str = "weight", **context: Any
    ) -> Stored:
        """See quantizers.mixed."""
        return quantize(self._base, weight, format, name=name, **context)

    def bias_shift(
        self, weight: Float32Matrix, value: Stored, *, name: str = "weight", mean: NDArray[Any] | None = None,
        held_out_mean: NDArray[Any] | None = None, **context: Any,
    ) -> NDArray[np.float64]:  # fmt: skip
        """float64 (out,) for the bias, 0 in outputs that it would not help on held-out tokens. See quantizers.bias."""
        return mean_shift(weight, value.dequantize(), mean, held_out_mean, name)


def kept(weight: Float32Matrix, value: Quantized, proposal: Quantized, held_out: Float64) -> Quantized:
    """Of every row the matrix that has the smaller error under the held-out moments; `value` where they are equal.

    A format of one scale a tensor has one choice for all rows.
    """
    before, after = (row_errors(weight, made, held_out) for made in (value, proposal))
    better = after < before
    if value.format.tensor:
        better = np.full(len(better), bool(after.sum() < before.sum()))
    if not better.any():
        return value
    pick = better[:, None]
    zeros = None
    if value.zeros is not None and proposal.zeros is not None:
        zeros = np.where(pick, proposal.zeros, value.zeros)
    codes, scales = np.where(pick, proposal.codes, value.codes), np.where(pick, proposal.scales, value.scales)
    return Quantized(codes, scales, zeros, value.format)


def row_errors(weight: Float32Matrix, made: Quantized, moments: Float64) -> NDArray[np.float64]:
    """dw H dw' of every row, float64 (out,)."""
    delta = made.dequantize().astype(np.float64) - weight
    errors: NDArray[np.float64] = np.einsum("ri,ri->r", arithmetic().product(delta, moments), delta)
    return errors


RTN_BIAS = BiasCorrected("rtn-bias", RoundToNearest())
GPTQ_BIAS = BiasCorrected("gptq-bias", Gptq())
ERQ = Compensated("erq", RoundToNearest(), Ridge(), judged=True)
GPTQ_GAIN = Compensated("gptq-gain", Gptq(), Gain(), judged=False)
