"""Round to nearest with the range of every group clipped where that lowers the error, never shrinking the weights.

For each group a few shrunk ranges are tried. With q the rounded steps, the scale is the one with w'Hq = w'Hw (H: the
group's block of the inputs' second moments, or the identity without calibration), and the range is kept whose
s^2 q'Hq, that is the error w'Hw - 2 w'H(sq) + (sq)'H(sq) plus a constant, is smallest. Without the rescaling a clipped
model gets worse (KL 1.15 to 1.54 of plain rounding), with it better (0.65 to 0.70): research/09 (d'), conclusion 3.

What an error counts is the option `error`: `plain` (every weight alike), `hessian` (the group's block of H; what is
taken wherever there are moments), or `salience`: H is then diagonal, row by row, with SliM-LLM's w_ij^2 / U_jj^2
(arXiv:2405.14917, section 3.2) of the weight itself, so that the range fits the weights that matter most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from quantizers.hessian import checked_hessian, column_costs, damped
from quantizers.rtn import GAIN_LIMITS, group_parameters, half_scale, round_codes

#: Shares of the range that are tried (research/09: 1 down to 0.5).
RATIOS = tuple(1 - 0.05 * step for step in range(11))
_HALF = 65504.0
ERRORS = ("plain", "hessian", "salience")
#: Share of the mean diagonal added to H before it is inverted for a salience (SliM-LLM's).
DAMPING = 0.01
#: x -> x H, for rows x of a group.
Pull = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Clip:
    """The `clip` quantizer: gain-corrected clip search."""

    name = "clip"
    options = frozenset({"error"})
    stateless = True

    def quantize(
        self,
        weight: Float32Matrix,
        format: Format,
        *,
        name: str = "weight",
        hessian: NDArray[Any] | None = None,
        ratios: tuple[float, ...] = RATIOS,
        error: str | None = None,
        **context: Any,
    ) -> Stored:
        """See quantizers.base.Quantizer. hessian: optional (in, in) sum of x x'. error: one of ERRORS (see the module).

        Raises InvalidInput for another error, InvalidCalibration for one that needs moments and has none.
        """
        if isinstance(format, FloatFormat):
            return pass_through(weight, format, name)
        if not isinstance(format, IntFormat) or not format.plain:
            raise Unsupported("clip cannot make this format", expected="an int, bf16 or fp16 format", got=format.name)
        check_weight(weight, name)
        if not np.isfinite(weight).all():
            raise not_finite(name, int(np.count_nonzero(~np.isfinite(weight))), weight.size)
        pull = _pulls(weight, hessian, error, name)
        spans = group_spans(weight.shape[1], format)
        parts = []
        for start, stop in spans:
            group = np.ascontiguousarray(weight[:, start:stop])
            parts.append(search(group, format, pull(start, stop), ratios, name))
        codes = np.concatenate([p[0] for p in parts], axis=1) if parts else np.empty(weight.shape, np.uint8)
        scales = np.stack([p[1] for p in parts], axis=1) if parts else np.empty((weight.shape[0], 0), np.float16)
        zeros = np.stack([p[2] for p in parts], axis=1) if parts else np.empty((weight.shape[0], 0), np.uint8)
        return Quantized(codes, scales, None if format.symmetric else zeros, format)


QUANTIZER = Clip()


def _pulls(
    weight: Float32Matrix, hessian: NDArray[Any] | None, error: str | None, name: str
) -> Callable[[int, int], Pull | None]:
    """How errors of the columns start..stop are weighed."""
    if error is not None and error not in ERRORS:
        raise InvalidInput("the option error of clip is unknown", expected=", ".join(ERRORS), got=repr(error)[:80])
    moments = checked_hessian(hessian, weight.shape[1], name)
    if error in ("hessian", "salience") and moments is None:
        raise InvalidCalibration(
            f"{name}: clip needs the second moments of the inputs for the error {error}", expected="hessian=(in, in)",
            got="none", hint="give calibration data, or use the error plain",
        )  # fmt: skip
    if error == "plain" or moments is None:
        return lambda start, stop: None
    if error == "salience":
        salience = (np.square(weight.astype(np.float64)) * column_costs(moments, DAMPING)).astype(np.float32)
        return lambda start, stop: lambda rows: rows * salience[:, start:stop]
    return lambda start, stop: by_moments(damped(moments[start:stop, start:stop], 0.0))


def by_moments(moments: NDArray[np.floating[Any]]) -> Pull:
    """Errors weighed by a group's block of H, float (size, size)."""
    block = moments.astype(np.float32)
    return lambda rows: rows @ block


def search(
    group: Float32Matrix,
    format: IntFormat,
    pull: Pull | None,
    ratios: tuple[float, ...],
    name: str,
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]:
    """Codes (rows, size), scales (rows) and zero points (rows) of one group of columns. pull: None for H = 1."""
    rows = group.shape[0]
    weighed = group if pull is None else pull(group)
    norm = np.einsum("ri,ri->r", weighed, group, dtype=np.float64)
    best = np.full(rows, np.inf)
    codes, scales, zeros = np.empty(group.shape, np.uint8), np.empty(rows, np.float16), np.empty(rows, np.uint8)
    low, high = group.min(axis=1), group.max(axis=1)
    for ratio in ratios:
        share = np.float32(ratio)
        start, zero = _start(group, low * share, high * share, format, name)
        tried = round_codes(group[:, None, :], start[:, None], zero[:, None], format.width)[:, 0]
        steps = tried.astype(np.float32) - zero[:, None].astype(np.float32)
        along = np.einsum("ri,ri->r", weighed, steps, dtype=np.float64)
        scale = _rescaled(start, along, norm, format)
        energy = np.einsum("ri,ri->r", steps if pull is None else pull(steps), steps, dtype=np.float64)
        real = scale.astype(np.float64)
        error = norm - 2 * real * along + real * real * energy
        better = error < best
        best[better], codes[better], scales[better], zeros[better] = (
            error[better], tried[better], scale[better], zero[better],
        )  # fmt: skip
    return codes, scales, zeros


def _start(
    group: Float32Matrix, low: NDArray[np.float32], high: NDArray[np.float32], format: IntFormat, name: str
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Scale and zero point of a clipped range; 1-bit formats have no range, their scale shrinks instead."""
    scale, zero = group_parameters(group[:, None, :], low[:, None], high[:, None], format, name)
    return scale[:, 0], zero[:, 0]


def _rescaled(
    scale: NDArray[np.float16], along: NDArray[np.float64], norm: NDArray[np.float64], format: IntFormat
) -> NDArray[np.float16]:
    """The scale with w'Hq = w'Hw, within GAIN_LIMITS of the rounding scale from 2 bits on."""
    before = scale.astype(np.float64)
    gain = np.divide(norm, along * before, out=np.ones_like(norm), where=(along * before) > 0)
    if format.width > 1:
        gain = np.clip(gain, *GAIN_LIMITS)
    held = np.clip(gain * before, -_HALF, _HALF)
    return half_scale(held.astype(np.float32), "scale")
