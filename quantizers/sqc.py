"""`sqc`: GPTQ with the salience-weighted ranges of SliM-LLM (arXiv:2405.14917, research/01 section 3).

Ranges are chosen block by block. Of a block's own range times tau, for tau in 1 +- `reach`, every row keeps the one
with the least

    sum |err|^2.4 over the weights that are not salient  +  lambda * sum |err|^2.4 over those that are.

Salient is a weight whose w^2 / U_jj^2 (U of H^-1 = U'U) lies more than `deviations` standard deviations above the mean
of its block: what taking it out would cost the output most. Both kinds share one scale and zero point: nothing more is
stored. tau = 1 is a candidate, so the score is never above that of the plain range. With lambda = 1, the released
code's value, the mask changes nothing.

The score looks at weights where they lie before the sweep, and GPTQ moves them: in groups of 32 the ranges so chosen
made KL 1.07 of plain GPTQ's at 3 bits (llama-stdlib). So the sweep runs with no reach, half of it and all of it, and
every row keeps the one that ends with the least output error (`contest`; row_contest); rows never end with more than
GPTQ's. A range smaller than the weights shrinks them, which the one factor a row of quantizers.gain undoes (`gain`).
Together 0.89 there. `contest = false, gain = false` is the release's.

Where else this differs from the release: columns go by falling diagonal of H with ranges of the original weights, as in
`gptq`; `order="natural"` is the release's (columns as they lie, ranges of the weights as they stand when the sweep
reaches the block): twice the other's output error at 2 bits where some inputs are outliers. `steps` candidates a side
instead of 50. Blocks are asymmetric wherever their format is. Groups of one bit have no range to choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput, Unsupported
from bitwright.core.formats import Format, IntFormat, MixedFormat
from quantizers.arithmetic import arithmetic
from quantizers.base import Float32Matrix, Mixed, Quantized, Stored, check_weight, group_spans, not_finite
from quantizers.gptq import BLOCK, DAMPING, ORDERS, Gptq, Prepared
from quantizers.hessian import damped
from quantizers.mixed import by_lines
from quantizers.row_contest import Swept, best_rows
from quantizers.rtn import SCALE_TYPES, group_parameters
from quantizers.sweep import Grid, blocks

#: Power of the error, the reach of tau and the threshold of salience, as released.
POWER, REACH, DEVIATIONS = 2.4, 0.1, 2.0
STEPS = 10


@dataclass(frozen=True)
class Ranges:
    """How ranges are chosen: the options of the quantizer. lam: lambda, what an error of a salient weight counts."""

    lam: float = 1.0
    reach: float = REACH
    steps: int = STEPS
    deviations: float = DEVIATIONS
    contest: bool = True
    gain: bool = True

    def __post_init__(self) -> None:
        numbers = (self.lam, self.reach, self.deviations)
        typed = isinstance(self.steps, int) and all(isinstance(value, int | float) for value in numbers)
        typed = typed and isinstance(self.contest, bool) and isinstance(self.gain, bool)
        if not (typed and self.lam > 0 and 0 <= self.reach < 1 and 0 <= self.steps <= 500 and self.deviations > 0):
            raise InvalidInput(
                "sqc cannot work with these settings",
                expected="lam > 0, 0 <= reach < 1, 0 <= steps <= 500, deviations > 0, contest and gain true or false",
                got=", ".join(f"{name}={value!r}"[:60] for name, value in vars(self).items()),
            )

    def contestants(self) -> tuple[Ranges, ...]:
        """The plain range, half the reach and all of it; only the last where rows do not choose."""
        if not self.contest or not self.steps or not self.reach:
            return (self,)
        return tuple(replace(self, reach=self.reach * share, steps=self.steps if share else 0) for share in (0, 0.5, 1))

    def shares(self) -> NDArray[np.float32]:
        """float32 (1 + 2 steps,): tau, 1 first."""
        sides = np.arange(1, self.steps + 1) * (self.reach / max(1, self.steps))
        return np.concatenate([[1.0], 1 + sides, 1 - sides]).astype(np.float32)

    def weights(self, group: Float32Matrix, costs: NDArray[np.float64]) -> NDArray[np.float32]:
        """float32 (rows, size): what each error counts. costs: (size,) 1 / U_jj^2."""
        salience = np.square(group, dtype=np.float64) * costs
        spread = float(salience.std())
        salient = salience - salience.mean() > self.deviations * spread if spread > 0 else np.zeros(group.shape, bool)
        return np.where(salient, np.float32(self.lam), np.float32(1))

    def choose(
        self, group: Float32Matrix, counts: NDArray[np.float32], format: IntFormat, name: str
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Scales and zero points (rows,) of the best tau of each row. group, counts: (rows, size)."""
        low, high = group.min(axis=1), group.max(axis=1)
        shares = self.shares() if format.width > 1 else np.ones(1, np.float32)
        found = [
            group_parameters(group[:, None], (low * tau)[:, None], (high * tau)[:, None], format, name)
            for tau in shares
        ]
        scales, zeros = (np.stack([each[which][:, 0] for each in found]) for which in (0, 1))
        if len(shares) == 1 or not group.size:
            return scales[0], zeros[0]
        best = arithmetic().power_errors(group, counts, scales, zeros, format.top, POWER).argmin(axis=0)
        rows = np.arange(len(group))
        return scales[best, rows], zeros[best, rows]


class Sqc(Gptq):
    """The `sqc` quantizer: what it does not do itself (16 bits, ggml's blocks, columns) it does as `gptq` does."""

    name = "sqc"
    options = frozenset({"lam", "reach", "steps", "deviations", "contest", "gain", "damping", "order"})

    def quantize(
        self, weight: Float32Matrix, format: Format, *, name: str = "weight", hessian: NDArray[Any] | None = None,
        damping: float = DAMPING, order: str = ORDERS[0], **context: Any,
    ) -> Stored:  # fmt: skip
        """See quantizers.base.Quantizer. hessian: as for `gptq`; context: the options of `Ranges`."""
        if not isinstance(format, IntFormat) or format.tensor or not weight.size:
            return super().quantize(weight, format, name=name, hessian=hessian, damping=damping)
        ranges = _ranges(context)
        check_weight(weight, name)
        spans = [(span, [(slice(None), format)]) for span in group_spans(weight.shape[1], format)]
        made = self._best(weight, spans, format, hessian, damping, order, ranges, name)
        return Quantized(made.codes, made.scales, None if format.symmetric else made.zeros, format)

    def quantize_mixed(
        self, weight: Float32Matrix, format: MixedFormat, *, name: str = "weight", hessian: NDArray[Any] | None = None,
        damping: float = DAMPING, order: str = ORDERS[0], **context: Any,
    ) -> Mixed:  # fmt: skip
        """See quantizers.mixed. Blocks of columns and groups in one sweep; rows one by one; columns as `gptq`."""
        if format.granularity.startswith("row"):
            return by_lines(self, weight, format, name=name, hessian=hessian, damping=damping, order=order, **context)
        if format.granularity == "column":
            return super().quantize_mixed(weight, format, name=name, hessian=hessian, damping=damping)
        members = [member for member in format.members if isinstance(member, IntFormat)]
        if len({(member.group, member.scale) for member in members}) != 1 or len(members) != len(format.members):
            raise Unsupported(
                f"{name}: sqc mixes integer formats of one group size only", got=format.label,
                hint="give all formats the same group, or use the quantizer gptq",
            )  # fmt: skip
        shape = (weight.shape[0], weight.shape[1])
        found, choice = format.cut(shape), format.line_choice(shape)
        spans = group_spans(shape[1], members[0])
        everywhere = np.repeat(choice, found.length).reshape(found.lines, found.length)
        of = found.to_matrix(everywhere, shape)[:, [start for start, _ in spans]]
        cells = [
            (span, [(np.flatnonzero(of[:, number] == i), member) for i, member in enumerate(members)])
            for number, span in enumerate(spans)
        ]
        made = self._best(weight, cells, members[0], hessian, damping, order, _ranges(context), name)
        coded, scaled, zeroed = (found.to_lines(array, shape) for array in (made.codes, made.scales, made.zeros))
        pieces = []
        for i, member in enumerate(members):
            mine = np.flatnonzero(choice == i)
            part, scale, zero = (np.ascontiguousarray(array[mine]) for array in (coded, scaled, zeroed))
            pieces.append(Quantized(part, scale, None if member.symmetric else zero, member))
        return Mixed(tuple(pieces), shape, format)

    def _best(
        self, weight: Float32Matrix, cells: list[Any], format: IntFormat, hessian: NDArray[Any] | None, damping: float,
        order: str, ranges: Ranges, name: str,
    ) -> Swept:  # fmt: skip
        """Rows of the best of several sweeps. cells: ((start, stop), [(rows, their format), ...]) of every group.

        format: one of the cells' formats, which all have the same type of scale.
        """
        check_weight(weight, name)
        if not np.isfinite(weight).all():
            raise not_finite(name, int(np.count_nonzero(~np.isfinite(weight))), weight.size)
        if order not in ORDERS:
            raise InvalidInput("sqc has no such order of columns", expected=", ".join(ORDERS), got=repr(order)[:40])
        prepared = self._prepared(hessian, weight.shape[1], damping, order, name)
        sweeps = (_swept(weight, cells, format.scale, prepared, chosen, name) for chosen in ranges.contestants())
        if not weight.size:
            return next(sweeps)
        moments = damped(prepared.moments, damping)
        if ranges.gain:
            sweeps = (made.louder(weight, moments, format) for made in sweeps)
        return best_rows(sweeps, weight, moments) if ranges.contest else next(sweeps)


def _swept(weight: Float32Matrix, cells: list[Any], scale: str, prepared: Prepared, ranges: Ranges, name: str) -> Swept:
    """One sweep of GPTQ. cells: as for Sqc._best."""
    spans, order = [span for span, _ in cells], prepared.order
    permutation, (rows, columns) = prepared.permutation, weight.shape
    costs = np.empty(columns)
    costs[permutation] = 1.0 / np.square(arithmetic().diagonal(prepared.upper))
    group_of = np.repeat(np.arange(len(spans)), [b - a for a, b in spans])
    scales = np.empty((rows, len(cells)), SCALE_TYPES[scale])
    zeros, tops = (np.zeros(scales.shape, np.uint8) for _ in range(2))
    signs = np.zeros(scales.shape, np.bool_)
    for number, (_, members) in enumerate(cells):
        for mine, format in members:
            tops[mine, number], signs[mine, number] = format.top, format.centered

    def decide(number: int, group: Float32Matrix) -> None:
        (start, stop), members = cells[number]
        counts = ranges.weights(group, costs[start:stop])
        for mine, format in members:
            found = ranges.choose(np.ascontiguousarray(group[mine]), counts[mine], format, name)
            scales[mine, number], zeros[mine, number] = found

    begins = {}
    if order == "activation":
        for number, (start, stop) in enumerate(spans):
            decide(number, weight[:, start:stop])
    else:
        begins = {start: (number, stop) for number, (start, stop) in enumerate(spans)}
    grid = Grid(scales, zeros, tops, group_of[permutation], signs if signs.any() else None, begins, decide)
    codes = arithmetic().sweep(weight, permutation, prepared.upper, blocks(columns, BLOCK, tuple(begins)), grid)
    return Swept(codes, scales, zeros, signs, np.array([stop - start for start, stop in spans], np.int64))


def _ranges(context: dict[str, Any]) -> Ranges:
    return Ranges(**{name: context[name] for name in Ranges.__dataclass_fields__ if name in context})


QUANTIZER = Sqc()
