"""The fused pass in torch, for tables that already lie on a device: the same answer as the compiled pass.

One multiplier bracket, one visit of the table: rows that have one best format for every multiplier in the bracket are
settled (their cost exact in integers, their loss in float64), the others are gathered, a few in a thousand; a narrower
bracket settles most of those, and the last go to the host, where `hull` finishes the work. Samples tell the first
bracket. Nothing here asks which device it is, but for the one kernel of cuda_pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import OutOfResources
from bitwright.core.problem import Limit, Problem, compact_bits
from gpu_kernels.compute import device_full
from solvers import cuda_pass, native

#: Rows looked at together: what lies between them and the table stays small.
BLOCK = 1 << 22
#: From so many rows on the sample of a table is large too.
LARGE = 1 << 22
#: A gap of so much of the loss is stated, not closed with all rows (as the compiled pass has it for large tables).
SMALL = 1e-9
#: About so many rows go to the host; where few are left, all of them.
FEW = 1 << 12
#: Multipliers tried at once, how often at most, and how far below the highest they begin.
GRID, ROUNDS, OCTAVES = 32, 12, 120
#: Numbers held at once while multipliers are tried.
AT_ONCE = 1 << 23
#: Rounding of one comparison of float32 differences, outward (native/fast.hpp).
MARGIN = 2.0**-20


@dataclass(frozen=True, eq=False)
class Settled:
    """choice: (n,) uint8 on the table's device, right for the settled rows; cost (exact) and loss of those; the rest.

    rows: indices of the rows that have no single best format in the bracket, on the device.
    """

    choice: torch.Tensor
    cost: int
    loss: float
    rows: torch.Tensor


def fused_pass(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, low: float, high: float) -> Settled:
    """loss (n, k) float32 or float64, size (n,) int32 or int64 and rate (k,) int64, on one device; 0 <= low <= high:
    multipliers. On CUDA one kernel does it (cuda_pass)."""
    # need[x, j]: least loss_j - loss_x per unit of size at which x beats j in the whole bracket.
    gap = (rate[:, None] - rate[None, :]).to(torch.float64)
    need = torch.where(gap > 0, high * gap * (1 + MARGIN), low * gap * (1 - MARGIN)).to(loss.dtype)
    price = (0.5 * (low + high) * (rate - rate.min()).to(torch.float64)).to(loss.dtype)
    if cuda_pass.takes(loss, size):
        return Settled(*cuda_pass.visit(loss, size, rate, price, need))
    choice = torch.empty(len(loss), dtype=torch.uint8, device=loss.device)
    costs, losses, rest = [], [], []
    for begin in range(0, len(loss), BLOCK):
        part, weight = loss[begin : begin + BLOCK], size[begin : begin + BLOCK]
        scale = weight.to(loss.dtype)[:, None]
        best = (part + scale * price).argmin(dim=1)
        chosen = part.gather(1, best[:, None])
        sure = (part - chosen >= need[best] * scale).all(dim=1)
        choice[begin : begin + BLOCK] = best.to(torch.uint8)
        costs.append(torch.where(sure, weight * rate[best], 0).sum())
        losses.append(torch.where(sure, chosen[:, 0].to(torch.float64), 0.0).sum())
        rest.append(torch.nonzero(~sure)[:, 0] + begin)
    return Settled(choice, int(torch.stack(costs).sum()), float(torch.stack(losses).sum()), torch.cat(rest))


@dataclass(frozen=True, eq=False)
class DeviceAnswer:
    """choice: (n,) uint8 on the table's device; slope: the multiplier; loss, cost: of the choice; bound: L(slope)."""

    choice: torch.Tensor
    slope: float
    loss: float
    cost: int
    bound: float
    passes: int


def solve_table(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, *, seed: int = 0, sample: int = 1 << 14
) -> DeviceAnswer | None:
    """The plan of a table on any device; None when nothing fits. Raises OutOfResources when memory ran out.

    See fused_pass for shapes and types. sample: rows that the first bracket is told by.
    """
    try:
        return _solved(loss, size, rate, limit, seed, sample)
    except RuntimeError as error:
        if not device_full(error):
            raise
        raise OutOfResources(
            f"the memory of {loss.device} ran out beside a table of {loss.shape[0]} units and {loss.shape[1]} formats",
            got=str(error).splitlines()[0][:160], hint="solve it on the host, with the solver hull",
        ) from error  # fmt: skip


def _solved(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, seed: int, sample: int
) -> DeviceAnswer | None:
    total = len(size) * int(size[0]) if size.stride(0) == 0 else int(size.sum())
    low, high = _bracket(loss, size, rate, limit / total, seed, sample)
    for attempt in range(40):
        found = fused_pass(loss, size, rate, low, high)
        rest = _finished(loss[found.rows], size[found.rows], rate, limit, found, low, high, seed)
        if rest is None or rest.slope > high:
            if high >= 1e300:
                return None
            low, high = high * (1 - 1e-6), (high * 2.0 ** (2 << min(attempt, 6)) if attempt < 8 else 1e300)
        elif rest.slope < low:
            low, high = (low / 2.0 ** (2 << min(attempt, 6)) if attempt < 4 else 0.0), low * (1 + 1e-6)
        else:
            found.choice[found.rows] = rest.choice
            return DeviceAnswer(found.choice, rest.slope, rest.loss, rest.cost, rest.bound, attempt + 1)
    return None


@dataclass(frozen=True, eq=False)
class _Rest:
    """choice: of the rows that were left, on their device; slope; loss, cost, bound: of the whole table."""

    choice: torch.Tensor
    slope: float
    loss: float = 0.0
    cost: int = 0
    bound: float = 0.0


def _finished(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, found: Settled, low: float, high: float,
    seed: int,
) -> _Rest | None:  # fmt: skip
    """The rows that `found` left, within what it leaves of the limit; None when they do not fit.

    Where they are many, a narrower bracket settles all but about FEW on the device too; where those do not bring the
    gap below SMALL of the loss, all go to the host after all.
    """
    left = limit - found.cost
    if len(loss) > 4 * FEW and high < 1e300:
        around = (high - low) * FEW / len(loss)
        least, most = critical(loss, size, rate, left, low, high, 0.5 * around / high)
        if not low <= least <= most <= high:
            return _Rest(torch.empty(0), least if least < low else np.inf)
        least, most = max(low, least - around), min(high, most + around)
        inner = fused_pass(loss, size, rate, least, most)
        few = _on_host(loss[inner.rows], size[inner.rows], rate, left - inner.cost, least, most, seed)
        settled = found.loss + inner.loss
        within = few.status != native.INFEASIBLE and least <= few.slope <= most
        if within and few.loss - few.bound <= SMALL * abs(settled + few.loss):
            inner.choice[inner.rows] = torch.from_numpy(few.choice).to(loss.device)
            return _Rest(
                inner.choice, few.slope, settled + few.loss, found.cost + inner.cost + few.cost, settled + few.bound
            )
    rest = _on_host(loss, size, rate, left, low, high, seed)
    if rest.status == native.INFEASIBLE:
        return None
    choice = torch.from_numpy(rest.choice).to(loss.device)
    return _Rest(choice, rest.slope, found.loss + rest.loss, found.cost + rest.cost, found.loss + rest.bound)


def _on_host(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, low: float, high: float, seed: int
) -> native.TableAnswer:
    parts = loss, size.to(torch.int64), rate
    table, sizes, rates = (part.cpu().numpy() for part in parts)
    return native.solve_table(table, limit, size=sizes, rate=rates, seed=seed, near=(low, high))


def critical(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: float, low: float, high: float,
    close: float = 1e-3,
) -> tuple[float, float]:  # fmt: skip
    """Two multipliers close to each other, at the first of which more than the limit is spent and at the second not.

    (0, low) or (high, inf) where they do not lie between low and high.
    """
    at_once = GRID if len(loss) * loss.shape[1] * GRID < AT_ONCE else GRID // 4
    for _ in range(ROUNDS):
        if high <= low * (1 + close):
            break
        begin = max(low, high * 2.0**-OCTAVES)
        grid = np.append(low, np.geomspace(begin, high, at_once - 1)[1 if begin == low else 0 :])
        within = np.flatnonzero(_spent(loss, size, rate, grid) <= limit)
        if not len(within):
            return high, np.inf
        if within[0] == 0:
            return 0.0, low
        low, high = float(grid[within[0] - 1]), float(grid[within[0]])
    return low, high


def _spent(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, grid: NDArray[np.float64]) -> NDArray[np.int64]:
    """What is spent at each multiplier, but for the rounding of losses."""
    prices = torch.from_numpy(grid).to(loss.device)[:, None] * (rate - rate.min()).double()
    found = torch.zeros(len(grid), dtype=torch.int64, device=loss.device)
    step = max(1, AT_ONCE // (len(grid) * loss.shape[1]))
    for begin in range(0, len(loss), step):
        part, weight = loss[begin : begin + step], size[begin : begin + step]
        value = part[None] + prices.to(loss.dtype)[:, None, :] * weight.to(loss.dtype)[None, :, None]
        found += (rate[value.argmin(dim=2)] * weight).sum(dim=1)
    answer: NDArray[np.int64] = found.cpu().numpy()
    return answer


def _bracket(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, share: float, seed: int, sample: int
) -> tuple[float, float]:
    """Critical multipliers of a sample at its share of the limit, less and more three standard deviations.

    share: the limit over the sum of sizes. The sample of a large table is large too: a sample of its own settles most
    of it.
    """
    n = len(loss)
    if n > sample:
        rows = _spread(n, n >> 6 if n > LARGE else sample, seed, loss.device)
        loss, size = loss[rows], size[rows]
    if len(loss) > sample:
        low, high = _bracket(loss, size, rate, share, seed, sample)
    else:
        low, high = 0.0, _highest(loss, size, rate)
    limit = share * int(size.sum())
    if low == 0.0:  # so wide a bracket settles nothing
        least, most = critical(loss, size, rate, limit, low, high)
        if most == np.inf:
            return least, 1e300
        found = fused_pass(loss, size, rate, most, most)
        left, part, weight = limit, loss, size
        below, above = (most * 2.0**-10, most), (most, most * 2.0**10)
    else:
        found = fused_pass(loss, size, rate, low, high)
        left, part, weight = limit - found.cost, loss[found.rows], size[found.rows]
        below = above = low, high
    over = (rate[found.choice.long()].double() - share) * size
    margin = 3.0 * float(over.square().sum().sqrt()) + 2.0 * int(size.max()) * int(rate.max())
    least = critical(part, weight, rate, left + margin, *below)[0]
    most = critical(part, weight, rate, left - margin, *above)[1]
    return _outward(least if low == 0.0 else max(low, least), most if low == 0.0 and most < np.inf else min(high, most))


def _highest(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor) -> float:
    """A multiplier at which only costs count."""
    known = loss[torch.isfinite(loss)].double()
    gaps = torch.diff(torch.unique(rate))
    least = float(gaps.min()) if len(gaps) else 1.0
    return max(1e-300, 2.0 * float(known.max() - known.min()) / (least * int(size.min())))


def _outward(low: float, high: float) -> tuple[float, float]:
    return low * (1 - 1e-6), max(high * (1 + 1e-6), low * (1 + 1e-5), 1e-300)


def _spread(n: int, rows: int, seed: int, device: torch.device) -> torch.Tensor:
    """A row of every n // rows that follow each other, drawn by a hash of their number: in order, and the same on every
    device."""
    number, width, mask = torch.arange(rows, device=device), n // rows, (1 << 32) - 1
    mixed = ((number + seed % (1 << 20)) * 0x7FEB352D) & mask
    mixed = ((mixed ^ (mixed >> 15)) * 0x46CA6B) & mask
    return number * width + (mixed ^ (mixed >> 16)) % width


def problem(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, rate_den: int = 1) -> Problem:
    """The same problem on the host, for the independent checker."""
    resource = compact_bits(size.cpu().numpy(), rate.cpu().numpy(), rate_den)
    return Problem(loss.cpu().numpy(), (resource,), (Limit("bits", limit),))
