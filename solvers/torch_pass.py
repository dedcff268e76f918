"""The fused pass in torch, for tables that already lie on a device: the same answer as the compiled pass.

One multiplier bracket, one visit of the table: rows that have one best format for every multiplier in the bracket are
settled (their cost exact in integers, their loss in float64), the others are gathered and go to the host, a few per
cent of the table, where `hull` finishes the work. Nothing here asks which device it is.
"""

from __future__ import annotations

import math
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
#: From so many rows on a sample of the table stays on its device.
LARGE = 1 << 22
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
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, *, seed: int = 0, sample: int = 1 << 15
) -> DeviceAnswer | None:
    """The plan of a table on any device; None when nothing fits. Raises OutOfResources when memory ran out.

    See fused_pass for shapes and types. sample: rows that go to the host to begin with.
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
        rest = _host(loss, size, rate, found.rows).solved(limit - found.cost, low, high, seed)
        if rest.status == native.INFEASIBLE or rest.slope > high:
            if high >= 1e300:
                return None
            low, high = high * (1 - 1e-6), (high * 2.0 ** (2 << min(attempt, 6)) if attempt < 8 else 1e300)
        elif rest.slope < low:
            low, high = (low / 2.0 ** (2 << min(attempt, 6)) if attempt < 4 else 0.0), low * (1 + 1e-6)
        else:
            found.choice[found.rows] = torch.from_numpy(rest.choice).to(found.choice.device)
            loss_of_all, bound = found.loss + rest.loss, found.loss + rest.bound
            return DeviceAnswer(found.choice, rest.slope, loss_of_all, found.cost + rest.cost, bound, attempt + 1)
    return None


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a table on the host."""

    loss: NDArray[np.floating]
    size: NDArray[np.int64]
    rate: NDArray[np.int64]

    def solved(self, limit: int, low: float, high: float, seed: int, seconds: float = 10.0) -> native.TableAnswer:
        """low, high: where the multiplier is looked for first."""
        return native.solve_table(
            self.loss, limit, size=self.size, rate=self.rate, seed=seed, seconds=seconds, near=(low, high)
        )

    def slope(self, limit: float) -> float:
        """The critical slope at a limit, 1e300 where nothing fits."""
        answer = self.solved(int(limit), 0.0, np.inf, 0, 0.05)
        return 1e300 if answer.status == native.INFEASIBLE else float(answer.slope)


def _host(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, rows: torch.Tensor) -> _Rows:
    parts = loss[rows], size[rows].to(torch.int64), rate
    part, weight, rates = (tensor.cpu().numpy() for tensor in parts)
    return _Rows(part, weight, rates)


def _bracket(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, share: float, seed: int, sample: int
) -> tuple[float, float]:
    """Critical slopes of a sample at its share of the limit, less and more three standard deviations.

    share: the limit over the sum of sizes. Of a large table the sample is large and stays on the device, where the
    bracket of a sample of its own settles most of it.
    """
    n = len(loss)
    if n > LARGE:
        rows = _spread(n, n >> 4, seed, loss.device)
        return _narrowed(loss[rows], size[rows], rate, share, seed, sample)
    drawn = np.arange(n) if n <= sample else np.sort(np.random.default_rng(seed).integers(0, n, sample))
    some = _host(loss, size, rate, torch.from_numpy(drawn).to(loss.device))
    limit = share * int(some.size.sum())
    middle = some.slope(limit)
    cost = np.multiply.outer(some.size, some.rate).astype(np.float64)
    best = (some.loss + middle * cost if middle < 1e300 else cost).argmin(axis=1)
    over = (some.rate[best] - share) * some.size
    margin = _margin(float((over * over).sum()), int(some.size.max()), int(some.rate.max()))
    return _outward(some.slope(limit + margin), some.slope(limit - margin))


def _narrowed(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, share: float, seed: int, sample: int
) -> tuple[float, float]:
    low, high = _bracket(loss, size, rate, share, seed, sample)
    found = fused_pass(loss, size, rate, low, high)
    over = (rate[found.choice.long()].double() - share) * size
    margin = _margin(float((over * over).sum()), int(size.max()), int(rate.max()))
    limit, rest = share * int(size.sum()) - found.cost, _host(loss, size, rate, found.rows)
    return _outward(*(min(max(rest.slope(limit + side * margin), low), high) for side in (1.0, -1.0)))


def _margin(squares: float, most: int, rate: int) -> float:
    return 3.0 * math.sqrt(squares) + 2.0 * most * rate


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
