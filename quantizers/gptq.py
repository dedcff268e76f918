"""GPTQ (Frantar et al. 2023, arXiv:2210.17323): round one input at a time, let the inputs still to come make up for it.

With H the damped second moment of the inputs and U the upper Cholesky factor of its inverse (H^-1 = U'U), column j is
rounded and every later column k takes  w_k -= (w_j - q_j) / U_jj * U_jk.  Columns go in blocks; a block's effect on
the columns behind it is one matrix product. All in float64.

Columns go by falling diagonal of H (`order="activation"`) or as they lie (`"natural"`). Scales (`scales="range"`) are
those of `rtn`: for the original weights (`groups="static"`, all there is in activation order, where the columns of a
group do not come together), or for the weights as they stand when the group begins (`"moving"`, what natural order
takes unless told). Unlike in `rtn` the scale that rounds is the scale that is stored: the errors passed on must be the
real ones. With `scales="clip"` they come from the gain-corrected range search of `clip` over the same weights, weighed
by the group's block of H. Formats of whole blocks go as they lie, and several formats in one matrix in activation order
with static groups: other settings are refused there.

KL over that of `rtn` on tests/models/llama-stdlib (H of 32 x 256 tokens of unquantized inputs, 3 k test tokens, groups
of 64): activation 0.23 at 2 bits and 0.20 at 3, natural 0.30 and 0.26; with clip 0.28 and 0.25, natural 0.26 and 0.26.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidCalibration, InvalidInput, Unsupported
from bitwright.core.formats import BlockFormat, FloatFormat, Format, GridFormat, IntFormat, MixedFormat
from quantizers.arithmetic import Arithmetic, Upper, arithmetic
from quantizers.base import (
    Float32Matrix,
    Mixed,
    Quantized,
    Stored,
    check_weight,
    group_spans,
    not_finite,
    pass_through,
)
from quantizers.block_sweep import sweep_blocks
from quantizers.hessian import Float64, checked_hessian, damped
from quantizers.mixed import by_lines
from quantizers.mixed_sweep import sweep_mixed
from quantizers.range_search import RATIOS, Spans, Weighing
from quantizers.rtn import QUANTIZER as NEAREST
from quantizers.rtn import SCALE_TYPES, group_parameters
from quantizers.sweep import Grid, blocks

#: Share of the mean diagonal added to the diagonal (the paper's 1 %), and how it grows while H is not definite.
DAMPING, DAMPING_GROWTH, DAMPING_TRIES = 0.01, 10.0, 5
BLOCK = 128
ORDERS = ("activation", "natural")
SCALES = ("range", "clip")
GROUPS = ("static", "moving")


@dataclass(frozen=True)
class Settings:
    """The options of `gptq`; None: what fits the format. Raises InvalidInput for values that are none."""

    damping: Any = DAMPING
    order: Any = None
    groups: Any = None
    scales: Any = "range"
    block: Any = BLOCK

    def __post_init__(self) -> None:
        numbers = [type(self.damping) in (int, float) and self.damping >= 0, type(self.block) is int and self.block > 0]
        words = [self.order in (None, *ORDERS), self.groups in (None, *GROUPS), self.scales in SCALES]
        if not all((*numbers, *words)) or (self.by_activation and self.groups == "moving"):
            raise InvalidInput(
                "gptq cannot work with these settings",
                expected=f"order in {ORDERS}, groups in {GROUPS} (moving in natural order alone), scales in {SCALES}, "
                "block >= 1, damping >= 0",
                got=", ".join(f"{name}={value!r}"[:60] for name, value in vars(self).items()),
            )

    @property
    def by_activation(self) -> bool:
        return bool(self.order != "natural")

    @property
    def moving(self) -> bool:
        return not self.by_activation and self.groups != "static"

    def require(self, format: Format, order: str) -> None:
        """Raises Unsupported where a format can be made in this order alone, from ranges of the original weights."""
        moved = order == ORDERS[0] and self.groups == "moving"
        if self.order not in (None, order) or self.scales != "range" or moved:
            raise Unsupported(
                f"gptq makes {format.label[:80]} in {order} order with scales of the range only",
                expected=f"order={order}, scales=range", got=f"order={self.order}, scales={self.scales}",
                hint="leave these options of the quantizer out",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Prepared:
    """A Hessian ready for sweeps. source: the array it came from; upper: U of H^-1 = U'U, columns in `permutation`."""

    source: Any
    damping: float
    order: str
    upper: Upper
    permutation: NDArray[np.intp]
    made_by: Arithmetic

    @property
    def moments(self) -> Float64:
        """The Hessian in float64: made when it is wanted, for it can be larger than the weights."""
        return np.asarray(self.source, np.float64)


class Gptq:
    """The `gptq` quantizer."""

    name = "gptq"
    options = frozenset(("damping", "order", "groups", "scales", "block"))

    def __init__(self) -> None:
        self._last: Prepared | None = None

    def quantize(
        self,
        weight: Float32Matrix,
        format: Format,
        *,
        name: str = "weight",
        hessian: NDArray[Any] | None = None,
        losses: Float64 | None = None,
        **context: Any,
    ) -> Stored:
        """See quantizers.base.Quantizer. hessian: (in, in) sum of x x' over calibration tokens, any scale. Further
        members: see Settings.

        losses: (out, in) array that takes what every weight's rounding costs (sweep.sweep); integer formats only.

        Raises InvalidCalibration without a usable Hessian. A Hessian of zeros (an expert that saw no token) is allowed
        and rounds to nearest.
        """
        if isinstance(format, FloatFormat):
            return pass_through(weight, format, name)
        if not isinstance(format, IntFormat | BlockFormat) or isinstance(format, GridFormat):
            # Columns of a rotated group have no errors of their own that later columns could make up for.
            raise Unsupported(
                "gptq cannot make this format", expected="an int, block or 16-bit format", got=format.label,
                hint="use --quantizer rtn for formats that rotate weights",
            )  # fmt: skip
        check_weight(weight, name)
        if not np.isfinite(weight).all():
            raise not_finite(name, int(np.count_nonzero(~np.isfinite(weight))), weight.size)
        told = self._settings(context)
        if not weight.size:
            return NEAREST.quantize(weight, format, name=name)
        if isinstance(format, BlockFormat):
            told.require(format, ORDERS[1])
            natural = self._prepared(hessian, weight.shape[1], told.damping, ORDERS[1], name)
            return sweep_blocks(weight, format, natural.upper, name)
        if told.scales == "clip" and not format.plain:
            raise Unsupported(
                f"gptq searches no range for {format.label[:80]}", expected="an int format with zero or middle codes",
                got=format.label[:80], hint="leave the option scales of the quantizer out",
            )  # fmt: skip
        prepared = self._prepared(hessian, weight.shape[1], told.damping, told.order or ORDERS[0], name)
        moments = damped(prepared.moments, told.damping) if told.scales == "clip" else None
        parameters = _Parameters(format, moments, name)
        return _quantize(weight, parameters, prepared, told, losses)

    def quantize_mixed(
        self,
        weight: Float32Matrix,
        format: MixedFormat,
        *,
        name: str = "weight",
        hessian: NDArray[Any] | None = None,
        losses: Float64 | None = None,
        **context: Any,
    ) -> Mixed:
        """See quantizers.mixed. Rows one by one; other parts in one sweep, in activation order, scales of the range."""
        if format.granularity.startswith("row"):
            return by_lines(self, weight, format, name=name, **{**context, "hessian": hessian})
        told = self._settings(context)
        told.require(format, ORDERS[0])
        check_weight(weight, name)
        if not np.isfinite(weight).all():
            raise not_finite(name, int(np.count_nonzero(~np.isfinite(weight))), weight.size)
        prepared = self._prepared(hessian, weight.shape[1], told.damping, ORDERS[0], name)
        return sweep_mixed(weight, format, prepared.upper, prepared.permutation, told.block, name, losses)

    def _settings(self, context: Mapping[str, Any]) -> Settings:
        return Settings(**{name: context[name] for name in self.options if name in context})

    def _prepared(self, hessian: NDArray[Any] | None, columns: int, damping: float, order: str, name: str) -> Prepared:
        """The factor of this Hessian; the last one is kept, because one Hessian serves several formats and units."""
        last = self._last
        told = (damping, order, arithmetic())
        if last is not None and last.source is hessian and (last.damping, last.order, last.made_by) == told:
            return last
        self._last = None  # before the next one is made: two of them are never held
        moments = checked_hessian(hessian, columns, name)
        if moments is None:
            raise InvalidCalibration(
                f"{name}: gptq needs the second moments of the inputs",
                expected="hessian=(in, in)",
                got="none",
                hint="give calibration data, or use the quantizer rtn",
            )
        upper, permutation = inverse_factor(moments, damping, order, name)
        self._last = Prepared(hessian, damping, order, upper, permutation, arithmetic())
        return self._last


QUANTIZER = Gptq()


def inverse_factor(hessian: Float64, damping: float, order: str, name: str) -> tuple[Upper, NDArray[np.intp]]:
    """(U, order of the columns) with H^-1 = U'U, H damped and permuted; damping grows until H is definite."""
    columns = hessian.shape[0]
    permutation = np.arange(columns)
    if order == "activation":
        permutation = np.argsort(-np.diag(hessian), kind="stable")
    for step in range(DAMPING_TRIES):
        upper = arithmetic().factor(damped(hessian, damping * DAMPING_GROWTH**step, permutation))
        if upper is not None:
            return upper, permutation
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

    def of(self, weight: Float32Matrix, spans: Spans) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """(rows, groups) each, of the columns that `spans` of the matrix cover."""
        if self.format.tensor:  # one scale for all rows: the matrix is one long group
            one = replace(self, format=replace(self.format, tensor=False)).of(weight.reshape(1, -1), [(0, weight.size)])
            return np.repeat(one[0], len(weight), axis=0), np.repeat(one[1], len(weight), axis=0)
        begin, moments = spans[0][0] if spans else 0, self.moments
        here = [(start - begin, stop - begin) for start, stop in spans]
        if moments is not None:
            mine = moments[begin:, begin:]
            weighing = Weighing(block=lambda start, stop: mine[start:stop, start:stop])
            return arithmetic().search(weight, here, self.format, weighing, RATIOS, self.name)[1:]
        scales = np.empty((len(weight), len(spans)), SCALE_TYPES[self.format.scale])
        zeros = np.empty(scales.shape, np.uint8)
        for index, (start, stop) in enumerate(here):
            grouped = weight[:, None, start:stop]
            low, high = grouped.min(axis=-1), grouped.max(axis=-1)
            found = group_parameters(grouped, low, high, self.format, self.name)
            scales[:, index], zeros[:, index] = found[0][:, 0], found[1][:, 0]
        return scales, zeros


def _quantize(
    weight: Float32Matrix, parameters: _Parameters, prepared: Prepared, told: Settings, losses: Float64 | None
) -> Quantized:
    format, permutation = parameters.format, prepared.permutation
    rows, columns = weight.shape
    spans = group_spans(columns, format)
    group_of = np.repeat(np.arange(len(spans)), [stop - start for start, stop in spans])
    if told.moving:
        scales, zeros = np.empty((rows, len(spans)), SCALE_TYPES[format.scale]), np.empty((rows, len(spans)), np.uint8)
    else:
        scales, zeros = parameters.of(weight, spans)

    def decide(index: int, group: Float32Matrix) -> None:
        found = parameters.of(group, [spans[index]])
        scales[:, index], zeros[:, index] = found[0][:, 0], found[1][:, 0]

    begins = {start: (index, stop) for index, (start, stop) in enumerate(spans)} if told.moving else {}
    signs = np.ones(scales.shape, np.bool_) if format.centered else None
    grid = Grid(scales, zeros, format.top, group_of[permutation], signs, begins, decide)
    cuts = blocks(columns, told.block, tuple(begins))
    codes = arithmetic().sweep(weight, permutation, prepared.upper, cuts, grid, losses)
    return Quantized(codes, scales, None if format.symmetric else zeros, format)
