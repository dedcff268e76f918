"""One visit of a table of losses on any device: the rows that one format is best for in a whole bracket of multipliers.

Nothing here asks which device it is, but for the one kernel of cuda_pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from solvers import cuda_pass

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
