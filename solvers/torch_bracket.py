"""Where the critical multiplier of a table lies that is on a device: by trying many at once, and by samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from solvers import cuda_pass
from solvers.torch_visit import fused_pass

#: From so many rows on the sample of a table is large too: one row of every STRETCH.
LARGE, STRETCH = 1 << 22, 64
#: Multipliers tried at once (no more than cuda_pass.LANES), how often at most, and how many octaves below the highest
#: they begin.
GRID, ROUNDS, OCTAVES = 32, 12, 120
#: Rows times multipliers looked at together.
AT_ONCE = 1 << 20


def critical(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: float, low: float, high: float,
    close: float = 1e-3,
) -> tuple[float, float]:  # fmt: skip
    """Two multipliers close to each other, at the first of which more than the limit is spent and at the second not.

    (0, low) or (high, inf) where they do not lie between low and high.
    """
    at_once = GRID if cuda_pass.takes(loss, size) or len(loss) * GRID <= AT_ONCE else GRID // 4
    for _ in range(ROUNDS):
        if high <= low * (1 + close):
            break
        begin = max(low, high * 2.0**-OCTAVES, 1e-307)  # a geometric grid has no zero
        grid = np.append(low, np.geomspace(begin, high, at_once - 1)[1 if begin == low else 0 :])
        within = np.flatnonzero(spent(loss, size, rate, grid) <= limit)
        if not len(within):
            return high, np.inf
        if within[0] == 0:
            return 0.0, low
        low, high = float(grid[within[0] - 1]), float(grid[within[0]])
    return low, high


def spent(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, grid: NDArray[np.float64]) -> NDArray[np.int64]:
    """What is spent at each multiplier, but for the rounding of losses. On CUDA one kernel does it (cuda_pass)."""
    prices = (torch.from_numpy(grid).to(loss.device)[:, None] * (rate - rate.min()).double()).to(loss.dtype)
    takes = cuda_pass.takes(loss, size)
    answer: NDArray[np.int64] = (cuda_pass.spend if takes else _spent_in_pieces)(loss, size, rate, prices).cpu().numpy()
    return answer


def _spent_in_pieces(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, prices: torch.Tensor
) -> torch.Tensor:  # fmt: skip
    """prices: (multipliers, k) cost of a unit of size, in losses."""
    found = torch.zeros(len(prices), dtype=torch.int64, device=loss.device)
    step = max(1, AT_ONCE // len(prices))
    for begin in range(0, len(loss), step):
        part, weight = loss[begin : begin + step].T.contiguous(), size[begin : begin + step]
        scale = weight.to(loss.dtype)
        best = part[0] + prices[:, :1] * scale  # (multipliers, rows), format by format: no array holds all three
        bits = rate[0].expand(best.shape)
        for j in range(1, len(rate)):
            other = torch.addcmul(part[j], prices[:, j : j + 1], scale)
            bits = torch.where(other < best, rate[j], bits)
            best = torch.minimum(best, other)
        found += (bits * weight).sum(dim=1)
    return found


def bracket(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, share: float, seed: int, sample: int
) -> tuple[float, float]:
    """Critical multipliers of a sample at its share of the limit, less and more three standard deviations.

    share: the limit over the sum of sizes. The sample of a large table is large too: a sample of its own settles most
    of it.
    """
    n = len(loss)
    if n > sample:
        rows = _spread(n, n // STRETCH if n > LARGE else sample, seed, loss.device)
        loss, size = loss[rows], size[rows]
    if len(loss) > sample:
        low, high = bracket(loss, size, rate, share, seed, sample)
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
    return outward(least if low == 0.0 else max(low, least), most if low == 0.0 and most < np.inf else min(high, most))


def _highest(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor) -> float:
    """A multiplier at which only costs count."""
    known = loss[torch.isfinite(loss)].double()
    if not len(known):
        return 1e-300
    gaps = torch.diff(torch.unique(rate))
    least = float(gaps.min()) if len(gaps) else 1.0
    return max(1e-300, 2.0 * float(known.max() - known.min()) / (least * max(1, int(size.min()))))


def outward(low: float, high: float) -> tuple[float, float]:
    return low * (1 - 1e-6), max(high * (1 + 1e-6), low * (1 + 1e-5), 1e-300)


def _spread(n: int, rows: int, seed: int, device: torch.device) -> torch.Tensor:
    """A row of every n // rows that follow each other, drawn by a hash of their number: in order, and the same on every
    device."""
    number, width, mask = torch.arange(rows, device=device), n // rows, (1 << 32) - 1
    mixed = ((number + seed % (1 << 20)) * 0x7FEB352D) & mask
    mixed = ((mixed ^ (mixed >> 15)) * 0x46CA6B) & mask
    return number * width + (mixed ^ (mixed >> 16)) % width
