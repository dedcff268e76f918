"""quantizers.arithmetic in torch, on any device that computes in float64.

Nothing waits for the device but what the host needs to see: codes, a group whose range is chosen when the sweep reaches
it, and whether a factor was found. Matrices of many rows go some rows at once, and candidates of a search some at once,
so that what is held is bounded; what does not fit even so is a typed error, never a silent turn to the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import OutOfResources
from bitwright.core.formats import IntFormat
from gpu_kernels.compute import device_full
from quantizers.base import Float32Matrix
from quantizers.range_search import HALF, Found, Spans, Weighing, candidates
from quantizers.rtn import GAIN_LIMITS, TINY_SCALE
from quantizers.sweep import Float64, Grid

#: Bytes that the weights of a sweep, and the temporaries of a search, take at once.
BYTES = 1 << 30
#: Bytes of temporaries for each weight and candidate of a search: float32 and float64 of steps and their products.
SEARCHED = 40


def placed(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array on a device; on the CPU the tensor shares its memory, unless that cannot be written to or has gaps."""
    whole = np.ascontiguousarray(array)
    # torch warns of arrays that cannot be written to, such as pages of a file.
    return torch.from_numpy(whole if whole.flags.writeable else whole.copy()).to(device)


class OnDevice:
    """See quantizers.arithmetic.Arithmetic. Every member raises OutOfResources when the device's memory ran out."""

    def __init__(self, device: torch.device, limit: int = BYTES) -> None:
        self._device, self._limit = device, limit

    def factor(self, definite: Float64) -> torch.Tensor | None:
        with self._memory("the factor of a Hessian", definite.shape):
            lower, failed = torch.linalg.cholesky_ex(self._put(definite).flip(0, 1))
            if int(failed):
                return None
            one = torch.eye(len(definite), dtype=torch.float64, device=self._device)
            upper: torch.Tensor = torch.linalg.solve_triangular(lower.flip(0, 1), one, upper=True)
            return upper

    def diagonal(self, upper: torch.Tensor) -> Float64:
        return _float64(upper.diagonal())

    def column_costs(self, definite: Float64) -> Float64:
        upper = self.factor(definite)
        if upper is None:
            raise np.linalg.LinAlgError("not positive definite")
        return _float64(upper.diagonal().square().reciprocal())

    def product(self, rows: NDArray[np.floating[Any]], moments: Float64) -> Float64:
        with self._memory("a product with moments", rows.shape):
            return _float64(self._put(rows).double() @ self._put(moments))

    def rest(self, weight: Float32Matrix, upper: torch.Tensor) -> Rest:
        with self._memory("the sweep of a matrix", weight.shape):
            return Rest(self, self._put(weight).double(), upper)

    def sweep(
        self, weight: NDArray[np.floating[Any]], order: NDArray[np.intp], upper: torch.Tensor, cuts: Sequence[int],
        grid: Grid, losses: Float64 | None = None,
    ) -> NDArray[np.uint8]:  # fmt: skip
        rows, columns = weight.shape
        codes = np.empty((rows, columns), np.uint8)
        # A group that is decided on the way may look at all rows.
        step = max(1, rows if grid.begins else self._limit // (8 * max(1, columns)))
        for start in range(0, rows, step):
            some = slice(start, start + step)
            with self._memory("the sweep of a matrix", weight[some].shape):
                _sweep(self, weight[some], order, upper, cuts, grid, some, codes, losses)
        return codes

    def search(
        self, weight: Float32Matrix, spans: Spans, format: IntFormat, weighing: Weighing, ratios: Sequence[float],
        name: str,
    ) -> Found:  # fmt: skip
        rows = weight.shape[0]
        codes = np.empty(weight.shape, np.uint8)
        scales, zeros = np.empty((rows, len(spans)), np.float16), np.empty((rows, len(spans)), np.uint8)
        for groups in _alike(spans):
            some = [spans[number] for number in groups]
            columns, size = slice(some[0][0], some[-1][1]), some[0][1] - some[0][0]
            blocks = None if weighing.block is None else np.stack([weighing.block(*span) for span in some])
            with self._memory("the search of ranges", weight.shape):
                held = None if blocks is None else self._put(blocks.astype(np.float32))
                step = max(1, self._limit // (SEARCHED * len(ratios) * size * len(some)))
                for start in range(0, rows, step):
                    part = slice(start, start + step)
                    grouped = np.ascontiguousarray(weight[part, columns]).reshape(-1, len(some), size)
                    each = None if weighing.each is None else weighing.each[part, columns].reshape(grouped.shape)
                    starts = list(candidates(grouped, ratios, format, name))
                    found = _best(self, grouped, held, each, starts, format)
                    codes[part, columns] = found[0].reshape(-1, len(some) * size)
                    scales[part, groups[0] : groups[-1] + 1], zeros[part, groups[0] : groups[-1] + 1] = found[1:]
        return codes, scales, zeros

    def power_errors(
        self, group: Float32Matrix, counts: Float32Matrix, scales: NDArray[Any], zeros: NDArray[np.uint8], top: int,
        power: float,
    ) -> Float64:  # fmt: skip
        found = np.empty(scales.shape)
        step = max(1, self._limit // (SEARCHED * max(1, group.size)))
        with self._memory("the search of ranges", group.shape):
            values, counted = self._put(group), self._put(counts)
            for start in range(0, len(scales), step):
                some = slice(start, start + step)
                scale = self._put(scales[some]).float()[..., None]
                zero = self._put(zeros[some]).float()[..., None]
                codes = ((values / scale).round_() + zero).clamp_(0, top)
                error = ((codes - zero) * scale - values).abs_().pow_(power)
                found[some] = _float64((counted.double() * error.double()).sum(-1))
        return found

    def _put(self, array: NDArray[Any]) -> torch.Tensor:
        return placed(array, self._device)

    @contextmanager
    def _memory(self, what: str, shape: tuple[int, ...]) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not device_full(error):
                raise
            raise OutOfResources(
                f"the memory of {self._device} ran out in {what} of shape {shape}",
                got=str(error).splitlines()[0][:160],
                hint="set BITWRIGHT_DEVICE=cpu, or name a device with more free memory",
            ) from error


class Rest:
    """See sweep.Rest."""

    def __init__(self, of: OnDevice, work: torch.Tensor, upper: torch.Tensor) -> None:
        self._of, self._work, self._upper = of, work, upper

    def columns(self, first: int, last: int) -> Float64:
        return _float64(self._work[:, first:last])

    def passed(self, first: int, last: int, rounded: Float64) -> None:
        with self._of._memory("the sweep of a matrix", tuple(self._work.shape)):
            delta = self._work[:, first:last] - self._of._put(rounded)
            block = self._upper[first:last, first:last]
            errors = torch.linalg.solve_triangular(block, delta, upper=True, left=False)
            self._work[:, last:].addmm_(errors, self._upper[first:last, last:], alpha=-1)


def _sweep(
    of: OnDevice, weight: NDArray[np.floating[Any]], order: NDArray[np.intp], upper: torch.Tensor, cuts: Sequence[int],
    grid: Grid, some: slice, codes: NDArray[np.uint8], losses: Float64 | None,
) -> None:  # fmt: skip
    """Rows `some`. Inside a block columns lie as rows: what a step touches is contiguous."""
    columns = weight.shape[1]
    work = of._put(weight).double()[:, of._put(order)]
    groups, scales, zeros = (of._put(array) for array in (grid.of, grid.scales[some], grid.zeros[some]))
    tops = grid.top if isinstance(grid.top, int) else of._put(grid.top[some])
    signs = None if grid.signs is None else of._put(grid.signs[some])
    made = torch.empty(work.shape, dtype=torch.uint8, device=work.device)
    cost = None if losses is None else torch.empty_like(work)
    for first, last in pairwise(cuts):
        begun = grid.begin(first, lambda start, stop: _float64(work[:, start:stop]))
        if begun is not None:
            scales[:, begun], zeros[:, begun] = of._put(grid.scales[:, begun]), of._put(grid.zeros[:, begun])
        here = groups[first:last]
        scale, zero = (array[:, here].T.double() for array in (scales, zeros))
        block = work[:, first:last].T.contiguous()
        if signs is not None:
            doubled = signs[:, here].T
            block += torch.where(doubled, scale, 0.0)
            scale = torch.where(doubled, 2 * scale, scale)
        top = tops if isinstance(tops, int) else tops[:, here].T.double()
        rounded, errors = _columns(block, upper[first:last, first:last], scale, zero, top)
        made[:, first:last] = rounded.T.to(torch.uint8)
        if cost is not None:
            cost[:, first:last] = errors.T.square() / 2
        if last < columns:
            work[:, last:].addmm_(errors.T, upper[first:last, last:], alpha=-1)
    codes[some, order] = made.cpu().numpy()
    if losses is not None and cost is not None:
        losses[some, order] = _float64(cost)


def _columns(
    block: torch.Tensor, upper: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, top: torch.Tensor | int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, errors) of the columns of a block, float64 (columns, rows) like the weights, which are used up."""
    rounded, errors = torch.empty_like(block), torch.empty_like(block)
    for j in range(len(block)):
        codes = (block[j] / scale[j]).round_().add_(zero[j]).clamp_(min=0)
        codes = codes.clamp_(max=top) if isinstance(top, int) else torch.minimum(codes, top[j])
        rounded[j] = codes
        errors[j] = (block[j] - (codes - zero[j]) * scale[j]) / upper[j, j]
        if j + 1 < len(block):
            block[j + 1 :].addr_(upper[j, j + 1 :], errors[j], alpha=-1)
    return rounded, errors


def _best(
    of: OnDevice, grouped: NDArray[np.float32], blocks: torch.Tensor | None, each: NDArray[np.float32] | None,
    starts: Sequence[tuple[NDArray[Any], NDArray[np.uint8]]], format: IntFormat,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:  # fmt: skip
    """Codes (rows, groups, size), scales and zero points (rows, groups) of the best candidate of every group.

    blocks: (groups, size, size) of H. each: (rows, groups, size) diagonals of it. starts: scales and zero points of the
    candidates, (rows, groups) each.
    """
    values, weights = of._put(grouped).transpose(0, 1), None if each is None else of._put(each).transpose(0, 1)

    def pulled(x: torch.Tensor) -> torch.Tensor:  # (groups, candidates, rows, size)
        if weights is not None:
            return x * weights[:, None]
        return x if blocks is None else (x.flatten(1, 2) @ blocks).view(x.shape)

    before, zero = (
        of._put(np.stack([start[which] for start in starts])).permute(2, 0, 1)[..., None] for which in (0, 1)
    )
    middle = zero.float()
    codes = (values[:, None] * (1 / before.float())).round_().add_(middle).clamp_(0, (1 << format.width) - 1)
    steps = codes - middle
    weighed = pulled(values[:, None].contiguous())
    norm = (weighed.double() * values[:, None].double()).sum(-1)
    along = (weighed.double() * steps.double()).sum(-1)
    scale = _rescaled(before[..., 0].double(), along, norm, format)
    energy = (pulled(steps).double() * steps.double()).sum(-1)
    real = scale.double()
    best = (norm - 2 * real * along + real * real * energy).argmin(dim=1, keepdim=True)
    picked = codes.to(torch.uint8).gather(1, best[..., None].expand(-1, -1, -1, codes.shape[-1]))[:, 0]
    answer = (picked, scale.gather(1, best)[:, 0], zero[..., 0].gather(1, best)[:, 0])
    found = [part.transpose(0, 1).contiguous().cpu().numpy() for part in answer]
    return found[0], found[1], found[2]


def _rescaled(before: torch.Tensor, along: torch.Tensor, norm: torch.Tensor, format: IntFormat) -> torch.Tensor:
    """See range_search."""
    product = along * before
    gain = torch.where(product > 0, norm / product, 1.0)
    if format.width > 1:
        gain = gain.clamp(*GAIN_LIMITS)
    held = (gain * before).clamp(-HALF, HALF).float()
    return torch.copysign(held.abs().clamp(min=float(TINY_SCALE)), held).half()


def _alike(spans: Spans) -> list[list[int]]:
    """Numbers of the groups that have one length, a run after the other."""
    runs: list[list[int]] = []
    for number, (start, stop) in enumerate(spans):
        if runs and spans[runs[-1][0]][1] - spans[runs[-1][0]][0] == stop - start:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _float64(found: torch.Tensor) -> Float64:
    array: Float64 = found.cpu().numpy()
    return array
