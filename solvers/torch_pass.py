"""The fused pass in torch, for tables that already lie on a device: the same answer as the compiled pass.

One multiplier bracket, one visit of the table: rows that have one best format for every multiplier in the bracket are
settled (their cost exact in integers, their loss in float64), the others are gathered and go to the host, a few per
cent of the table, where `hull` finishes the work. Nothing here asks which device it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.problem import Limit, Problem, compact_bits
from solvers import native

#: Rows looked at together: what lies between them and the table stays small.
BLOCK = 1 << 22
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
    """loss (n, k) float32 or float64, size (n,) and rate (k,) int64, on one device; 0 <= low <= high: multipliers."""
    choice = torch.empty(len(loss), dtype=torch.uint8, device=loss.device)
    cost, total, rest = 0, 0.0, []
    # need[j, x]: least loss_j - loss_x per unit of size at which x beats j in the whole bracket.
    gap = (rate[None, :] - rate[:, None]).to(torch.float64)
    need = torch.where(gap > 0, high * gap * (1 + MARGIN), low * gap * (1 - MARGIN)).to(loss.dtype)
    price = (0.5 * (low + high) * (rate - rate.min()).to(torch.float64)).to(loss.dtype)
    for begin in range(0, len(loss), BLOCK):
        part, weight = loss[begin : begin + BLOCK], size[begin : begin + BLOCK]
        scale = weight.to(loss.dtype)[:, None]
        best = (part + scale * price).argmin(dim=1)
        chosen = part.gather(1, best[:, None])
        sure = (part - chosen >= need.t()[best] * scale).all(dim=1)
        choice[begin : begin + BLOCK] = best.to(torch.uint8)
        cost += int(torch.where(sure, weight * rate[best], 0).sum())
        total += float(torch.where(sure, chosen[:, 0].to(torch.float64), 0.0).sum())
        rest.append(torch.nonzero(~sure)[:, 0] + begin)
    return Settled(choice, cost, total, torch.cat(rest))


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
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, *, seed: int = 0, sample: int = 1 << 16
) -> DeviceAnswer | None:
    """The plan of a table on any device; None when nothing fits. Raises OutOfResources when memory ran out."""
    low, high = _bracket(loss, size, rate, limit, seed, sample)
    for attempt in range(40):
        found = fused_pass(loss, size, rate, low, high)
        rows = found.rows
        rest = native.solve_table(
            loss[rows].cpu().numpy(),
            limit - found.cost,
            size=size[rows].cpu().numpy(),
            rate=rate.cpu().numpy(),
            seed=seed,
        )  # fmt: skip
        if rest.status == native.INFEASIBLE or rest.slope > high:
            if high >= 1e300:
                return None
            low, high = high * (1 - 1e-6), (high * 2.0 ** (2 << min(attempt, 6)) if attempt < 8 else 1e300)
        elif rest.slope < low:
            low, high = (low / 2.0 ** (2 << min(attempt, 6)) if attempt < 4 else 0.0), low * (1 + 1e-6)
        else:
            choice = found.choice.clone()
            choice[rows] = torch.from_numpy(rest.choice).to(choice.device)
            total, bound = found.loss + rest.loss, found.loss + rest.bound
            return DeviceAnswer(choice, rest.slope, total, found.cost + rest.cost, bound, attempt + 1)
    return None


def _bracket(
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, seed: int, sample: int
) -> tuple[float, float]:
    """Critical slopes of a sample at its share of the limit, less and more three standard deviations."""
    generator = np.random.default_rng(seed)
    n = len(loss)
    drawn = np.arange(n) if n <= sample else np.sort(generator.integers(0, n, sample))
    rows = torch.from_numpy(drawn).to(loss.device)
    part, weight = loss[rows].cpu().numpy(), size[rows].cpu().numpy()
    rates, total = rate.cpu().numpy(), int(size.sum())
    share = limit / total
    middle = _slope(part, weight, rates, int(share * int(weight.sum())))
    cost = np.multiply.outer(weight, rates).astype(np.float64)
    best = (part + middle * cost if middle < 1e300 else cost).argmin(axis=1)
    over = (rates[best] - share) * weight
    margin = 3.0 * float(np.sqrt((over * over).sum())) + 2.0 * float(weight.max()) * float(rates.max())
    low, high = (_slope(part, weight, rates, int(share * int(weight.sum()) + side * margin)) for side in (1.0, -1.0))
    return low * (1 - 1e-6), max(high * (1 + 1e-6), low * (1 + 1e-5), 1e-300)


def _slope(loss: NDArray[np.floating], size: NDArray[np.int64], rate: NDArray[np.int64], limit: int) -> float:
    answer = native.solve_table(loss, limit, size=size, rate=rate, seconds=0.05)
    return 1e300 if answer.status == native.INFEASIBLE else answer.slope


def problem(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, rate_den: int = 1) -> Problem:
    """The same problem on the host, for the independent checker."""
    resource = compact_bits(size.cpu().numpy(), rate.cpu().numpy(), rate_den)
    return Problem(loss.cpu().numpy(), (resource,), (Limit("bits", limit),))
