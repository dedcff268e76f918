"""The plan of a table that already lies on a device, in torch: the same answer as the compiled solver's.

Samples tell a bracket of multipliers (torch_bracket), one visit of the table settles the rows that have one best format
in it, their cost exact in integers, their loss in float64 (torch_visit). The others, a few in a thousand, are gathered;
a narrower bracket settles most of those, and the last go to the host, where `hull` finishes the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral

import numpy as np
import torch

from bitwright.core import problem_check
from bitwright.core.errors import InvalidProblem, OutOfResources
from bitwright.core.problem import Limit, Problem, compact_bits
from bitwright.core.problem_check import INT64_MAX, MAX_FORMATS
from gpu_kernels.compute import device_full
from solvers import native
from solvers.torch_bracket import bracket, critical
from solvers.torch_visit import Settled, fused_pass

#: A gap of so much of the loss is stated, not closed with all rows (as the compiled pass has it for large tables).
SMALL = 1e-9
#: Sizes added up at once.
PIECE = 1 << 22
#: About so many rows go to the host; where few are left, all of them.
FEW = 1 << 12


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

    See fused_pass for shapes and types. sample: rows that the first bracket is told by. Sizes are not looked at (that
    would be one more read): none may be negative, and the largest total must fit int64. Raises InvalidProblem.
    """
    _check(loss, size, rate, limit)
    try:
        return _solved(loss, size, rate, int(limit), seed, sample)
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
    low, high = bracket(loss, size, rate, limit / max(1, _total(size)), seed, sample)
    unspendable = partial(_unspendable, size, rate, limit)
    for attempt in range(40):
        found = fused_pass(loss, size, rate, low, high)
        rest = _finished(loss[found.rows], size[found.rows], rate, limit, found, low, high, seed, unspendable)
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


def _check(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int) -> None:
    """All that can be told without a look at the table; `_on_host` sees the rows of which one loss cannot be used."""
    parts = (loss, size, rate)
    if not all(isinstance(part, torch.Tensor) for part in parts) or [part.ndim for part in parts] != [2, 1, 1]:
        raise InvalidProblem("a table on a device is tensors", expected="loss (n, k), size (n,), rate (k,)")
    kinds = (torch.float32, torch.float64), (torch.int32, torch.int64), (torch.int64,)
    if not all(part.dtype in known for part, known in zip(parts, kinds, strict=True)):
        got = ", ".join(str(part.dtype) for part in parts)
        raise InvalidProblem("wrong types", expected="float32 or float64, int32 or int64, int64", got=got)
    n, k = loss.shape
    if not (n == len(size) > 0 and 0 < k == len(rate) <= MAX_FORMATS):
        got = ", ".join(str(tuple(part.shape)) for part in parts)
        raise InvalidProblem("shapes do not fit", expected=f"(n, k), (n,), (k,), k at most {MAX_FORMATS}", got=got)
    if int(rate.min()) < 0 or not isinstance(limit, Integral) or abs(limit) > INT64_MAX:
        raise InvalidProblem("rates must not be negative, and the limit an int64", got=repr(limit)[:40])


def _total(size: torch.Tensor) -> int:
    """In pieces: torch makes 64 bits of all 32-bit sizes before it adds them up."""
    if size.stride(0) == 0:
        return len(size) * int(size[0])
    return int(torch.stack([size[at : at + PIECE].sum() for at in range(0, len(size), PIECE)]).sum())


def _unspendable(size: torch.Tensor, rate: torch.Tensor, limit: int) -> int:
    """What no plan can spend of the limit: totals go in steps of the sizes' and the rates' common divisors."""
    least = int(rate.min())
    common = int(np.gcd.reduce(size[:: max(1, len(size) // FEW)].cpu().numpy()))
    while size.stride(0) and common > 1 and bool((off := size % common).any()):
        common = int(np.gcd(common, int(off.max())))
    step = common * int(np.gcd.reduce((rate - least).cpu().numpy()))
    return (limit - _total(size) * least) % step if step else 0


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
    seed: int, unspendable: Callable[[], int],
) -> _Rest | None:  # fmt: skip
    """The rows that `found` left, within what it leaves of the limit; None when they do not fit.

    Where they are many, a narrower bracket settles all but about FEW on the device too; where those do not bring the
    gap below SMALL of the loss, though for what is unspendable, all go to the host after all.
    """
    left = limit - found.cost
    if len(loss) > 4 * FEW and high < 1e300:
        around = (high - low) * FEW / len(loss)
        least, most = critical(loss, size, rate, left, low, high, 0.5 * around / high)
        if not low <= least <= most <= high:
            return _Rest(torch.empty(0), least if least < low else np.inf)
        least, most = max(low, least - around), min(high, most + around)
        inner = fused_pass(loss, size, rate, least, most)
        settled, some = found.loss + inner.loss, (loss[inner.rows], size[inner.rows], rate)
        for seconds in (0.0, 10.0):  # the relaxation's own plan may do
            few = _on_host(*some, left - inner.cost, least, most, seed, seconds)
            done = few.status == native.INFEASIBLE or few.loss - few.bound <= SMALL * abs(settled + few.loss)
            if done:
                break
        within = few.status != native.INFEASIBLE and least <= few.slope <= most
        if within and (
            done or few.loss - few.bound - few.slope * unspendable() <= SMALL * abs(settled + few.loss)
        ):  # fmt: skip
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
    loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, low: float, high: float, seed: int,
    seconds: float = 10.0,
) -> native.TableAnswer:  # fmt: skip
    parts = loss, size.to(torch.int64), rate
    table, sizes, rates = (part.cpu().numpy() for part in parts)
    # No visit is sure of a row with NaN or -inf, or without a finite loss, as every comparison with it fails.
    problem_check.extremes(table)
    if np.isinf(table.min(axis=1)).any():
        raise InvalidProblem("a unit may take no format at all", hint="leave one finite loss a row")
    return native.solve_table(table, limit, size=sizes, rate=rates, seed=seed, seconds=seconds, near=(low, high))


def problem(loss: torch.Tensor, size: torch.Tensor, rate: torch.Tensor, limit: int, rate_den: int = 1) -> Problem:
    """The same problem on the host, for the independent checker."""
    resource = compact_bits(size.cpu().numpy(), rate.cpu().numpy(), rate_den)
    return Problem(loss.cpu().numpy(), (resource,), (Limit("bits", limit),))
