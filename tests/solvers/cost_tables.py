"""Tables of losses and costs with slopes of one kind, and what `hull` proves of them."""

from __future__ import annotations

import numpy as np

from bitwright.core.certificate import verify
from bitwright.core.problem import Limit, Problem, Resource
from solvers import solve

#: Of `native.solve_table`: tables of no more rows are not streamed, also where their matrix is sizes times rates.
UNSTREAMED = 1 << 20
#: Factors of the slopes, where they are of a few kinds.
FACTORS = {"two": (1.0, 1.3), "three": (1.0, 1.3, 1.7)}


def losses(slopes: str, size: np.ndarray, rate: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slopes equal, nearly equal ("near"), of two or three kinds, rows alike; or losses that fall as 4^-bits."""
    n, k = len(size), len(rate)
    if slopes == "alike":
        return size[:, None] * np.sort(rng.random(k))[::-1]
    if slopes == "fall":
        return size[:, None] * 4.0 ** -(rate / 16) * np.exp(rng.normal(0, 1, (n, 1)))
    loss = size[:, None] * (rate.max() + 1.0 - rate)
    if slopes == "near":
        return loss * (1 + 1e-5 * rng.normal(size=(n, k)))
    return loss * rng.choice(FACTORS[slopes], n)[:, None] if slopes in FACTORS else loss


def limit_at(cost: np.ndarray, share: float) -> int:
    """The limit at a share of the range of costs."""
    low, high = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    return low + int(share * (high - low))


def unstreamed(size: np.ndarray, rate: np.ndarray) -> Resource:
    """Sizes times rates as a matrix that is none of any: its first unit pays one more whatever its format."""
    cost = np.multiply.outer(size, rate)
    cost[0] += 1
    return Resource("bits", matrix=cost)


def problem(loss: np.ndarray, cost: np.ndarray, limit: int) -> Problem:
    return Problem(loss, (Resource("bits", matrix=cost),), (Limit("bits", limit),))


def proved(loss: np.ndarray, cost: np.ndarray, limit: int) -> float:
    """Loss of the plan of `hull`, which must be proved and verified."""
    given = problem(loss, cost, limit)
    solution = solve(given, "hull")
    assert verify(given, solution.choice, solution.certificate).ok
    assert solution.certificate.status == "optimal"
    assert solution.loss is not None
    return solution.loss
