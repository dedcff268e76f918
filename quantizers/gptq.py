"""GPTQ (Frantar et al. 2023, arXiv:2210.17323): round one input at a time, let the inputs still to come make up for it.

With H the damped second moment of the inputs and U the upper Cholesky factor of its inverse (H^-1 = U'U), column j is
rounded and every later column k takes  w_k -= (w_j - q_j) / U_jj * U_jk.  Columns go in blocks; a block's effect on
the columns behind it is one matrix product. All in float64.

Columns go by falling diagonal of H (`order="activation"`) or as they lie (`"natural"`). Scales (`scales="range"`) are
those of `rtn`: for the original weights in activation order, where a group's columns do not come together, and for the
weights as they stand when the group begins in natural order. Unlike in `rtn` the scale that rounds is the scale that is
stored: the errors passed on must be the real ones. With `scales="clip"` they come from the gain-corrected range search
of `clip` over the same weights, weighed by the group's block of H.

KL over that of `rtn` on tests/models/llama-stdlib (H of 32 x 256 tokens of unquantized inputs, 3 k test tokens, groups
of 64): activation 0.23 at 2 bits and 0.20 at 3, natural 0.30 and 0.26; with clip 0.28 and 0.25, natural 0.26 and 0.26.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from bitwright.core.errors import InvalidCalibration, InvalidInput, Unsupported
from bitwright.core.formats import FloatFormat, Format, IntFormat
from quantizers.base import (
    Float32Matrix,
    Quantized,
    Stored,
    check_weight,
    group_spans,
    not_finite,
    pass_through,
)
from quantizers.clip import RATIOS, search
from quantizers.hessian import Float64, checked_hessian, damped
from quantizers.rtn import group_parameters

#: Share of the mean diagonal added to the diagonal (the paper's 1 %), and how it grows while H is not definite.
DAMPING, DAMPING_GROWTH, DAMPING_TRIES = 0.01, 10.0, 5
BLOCK = 128
ORDERS = ("activation", "natural")
SCALES = ("range", "clip")


class Gptq:
    """The `gptq` quantizer."""

    name = "gptq"

    def quantize(
        self,
        weight: Float32Matrix,
        format: Format,
        *,
        name: str = "weight",
        hessian: NDArray[Any] | None = None,
        damping: float = DAMPING,
        order: str = ORDERS[0],
        scales: str = "range",
        block: int = BLOCK,
        **context: Any,
    ) -> Stored:
        """See quantizers.base.Quantizer. hessian: (in, in) sum of x x' over calibration tokens, any scale.

        Raises InvalidCalibration without a usable Hessian. A Hessian of zeros (an expert that saw no token) is allowed
        and rounds to nearest.
        """
        if isinstance(format, FloatFormat):
            return pass_through(weight, format, name)
        if not isinstance(format, IntFormat) or not format.plain:
            raise Unsupported("gptq cannot make this format", expected="an int, bf16 or fp16 format", got=format.name)
        check_weight(weight, name)
        if not np.isfinite(weight).all():
            raise not_finite(name, int(np.count_nonzero(~np.isfinite(weight))), weight.size)
        if order not in ORDERS or scales not in SCALES or block < 1 or damping < 0:
            raise InvalidInput(
                "gptq cannot work with these settings",
                expected=f"order in {ORDERS}, scales in {SCALES}, block >= 1, damping >= 0",
                got=f"order={order!r}, scales={scales!r}, block={block}, damping={damping}",
            )
        moments = checked_hessian(hessian, weight.shape[1], name)
        if moments is None:
            raise InvalidCalibration(
                f"{name}: gptq needs the second moments of the inputs",
                expected="hessian=(in, in)",
                got="none",
                hint="give calibration data, or use the quantizer rtn",
            )
        factor = inverse_factor(moments, damping, order, name)
        parameters = _Parameters(format, damped(moments, damping) if scales == "clip" else None, name)
        return _sweep(weight, parameters, factor, order, block)


QUANTIZER = Gptq()


def inverse_factor(hessian: Float64, damping: float, order: str, name: str) -> tuple[Float64, NDArray[np.intp]]:
    """(U, order of the columns) with H^-1 = U'U, H damped and permuted; damping grows until H is definite."""
    columns = hessian.shape[0]
    permutation = np.arange(columns)
    if order == "activation":
        permutation = np.argsort(-np.diag(hessian), kind="stable")
    for step in range(DAMPING_TRIES):
        work = damped(hessian, damping * DAMPING_GROWTH**step)[np.ix_(permutation, permutation)]
        try:
            # The Cholesky factor of H read backwards, turned round again, is an upper R with H = RR'; U is its inverse.
            upper = np.linalg.cholesky(work[::-1, ::-1])[::-1, ::-1]
            return np.asarray(solve_triangular(upper, np.eye(columns))), permutation
        except np.linalg.LinAlgError:
            continue
    raise InvalidCalibration(
        f"{name}: the Hessian is not positive definite, even damped",
        expected=f"definite with {damping * DAMPING_GROWTH ** (DAMPING_TRIES - 1):g} of its mean diagonal added",
        hint="use more calibration data or a larger damping",
    )


@dataclass(frozen=True)
class _Parameters:
    """How a group gets its scales (rows,) and zero points (rows,). moments: damped H for the clip search, or None."""

    format: IntFormat
    moments: Float64 | None
    name: str

    def of(self, group: Float32Matrix, span: tuple[int, int]) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        if self.moments is not None:
            start, stop = span
            block = self.moments[start:stop, start:stop].astype(np.float32)
            _, scale, zero = search(np.ascontiguousarray(group), self.format, block, RATIOS, self.name)
            return scale, zero
        grouped = group[:, None, :]
        low, high = grouped.min(axis=-1), grouped.max(axis=-1)
        scales, zeros = group_parameters(grouped, low, high, self.format, self.name)
        return scales[:, 0], zeros[:, 0]


def _sweep(
    weight: Float32Matrix, parameters: _Parameters, factor: tuple[Float64, NDArray[np.intp]], order: str, block: int
) -> Quantized:
    format = parameters.format
    upper, permutation = factor
    rows, columns = weight.shape
    work = weight.astype(np.float64)[:, permutation]
    spans = group_spans(columns, format)
    group_of = np.repeat(np.arange(len(spans)), [stop - start for start, stop in spans])
    scales = np.empty((rows, len(spans)), np.float16)
    zeros = np.empty((rows, len(spans)), np.uint8)
    codes = np.empty((rows, columns), np.uint8)
    if order == "activation":
        for index, (start, stop) in enumerate(spans):
            scales[:, index], zeros[:, index] = parameters.of(weight[:, start:stop], (start, stop))
    top = (1 << format.width) - 1
    for first in range(0, columns, block):
        last = min(first + block, columns)
        errors = np.empty((rows, last - first))
        for j in range(first, last):
            column = int(permutation[j])
            index = int(group_of[column])
            if order == "natural" and j == spans[index][0]:
                group = _current_group(work, upper, errors, first, last, spans[index])
                scales[:, index], zeros[:, index] = parameters.of(group, spans[index])
            scale, zero = scales[:, index].astype(np.float64), zeros[:, index].astype(np.float64)
            rounded = np.clip(np.rint(work[:, j] / scale) + zero, 0, top)
            codes[:, column] = rounded
            errors[:, j - first] = (work[:, j] - (rounded - zero) * scale) / upper[j, j]
            work[:, j + 1 : last] -= np.outer(errors[:, j - first], upper[j, j + 1 : last])
        work[:, last:] -= errors @ upper[first:last, last:]
    return Quantized(codes, scales, None if format.symmetric else zeros, format)


def _current_group(
    work: Float64, upper: Float64, errors: Float64, first: int, last: int, span: tuple[int, int]
) -> Float32Matrix:
    """The weights of a group as they stand now: its columns beyond the block still lack this block's errors."""
    start, stop = span
    group = work[:, start:stop].copy()
    if stop > last:
        done = start - first
        group[:, last - start :] -= errors[:, :done] @ upper[first:start, last:stop]
    return group.astype(np.float32)
