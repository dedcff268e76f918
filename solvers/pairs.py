"""`pairs`: pair terms (interaction-aware allocation): local search from the `hull` plan, a bound, a complete search.

The bound is the better of two: that of `pair_dual`, whose messages the certificate carries, or that of `pair_convex`,
whose curvature it carries, so that anyone can recompute it. Small problems are then closed by branch and bound; larger
ones state their gap.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray, Pairs
from solvers.base import Deadline, Outcome, Solver
from solvers.hull import hull
from solvers.infeasibility import alone
from solvers.one_thread import one_thread
from solvers.pair_convex import convex_bound
from solvers.pair_dual import Bound, bound, priced
from solvers.pair_field import Field
from solvers.pair_search import Branched, branch, local_search
from solvers.reduce import Reduced
from solvers.refute import refuted
from solvers.vector import vector

#: Share of the time for plans; messages beyond this many numbers are left out of the certificate.
SHARE, MESSAGES = 0.5, 1_000_000
#: Share of the time for the convex bound.
CONVEX = 0.5
#: Groups beyond which no complete search is tried (its depth is theirs).
DEEPEST = 200
#: Significant digits of the messages: any numbers give a bound, and short ones make small files.
DIGITS = 10


def pairs(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Pair terms with any limits, rules and ties. Raises Unsupported beyond `pair_field.CELLS`."""
    if alone(reduced) is not None:
        return refuted(reduced, deadline, seed)
    return _search(reduced, deadline, seed, DEEPEST)


def first(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """The plan and bound before any complete search, for solvers that make their own."""
    return _search(reduced, deadline, seed, 0)


@one_thread()
def _search(reduced: Reduced, deadline: Deadline, seed: int, deepest: int) -> Outcome:
    field = Field.of(reduced)
    convex = convex_bound(field, Deadline.after(max(1e-3, CONVEX * deadline.left)))
    found = bound(field, deadline, seed)
    bent = convex is not None and convex.value > found.value
    price, constant = priced(field, found.multipliers)
    moved = field.moved(found.messages)
    starts = [field.without_pairs()] + ([moved.without_pairs()] if len(field.edges) else [])
    if convex is not None and bent:
        starts = [replace(reduced, loss=convex.tangent, pairs=Pairs()), *starts]
    choice = _plan(field, starts, price, Deadline.after(max(1e-3, SHARE * deadline.left)), seed)
    tree = Branched(choice, False, 0)
    if reduced.groups <= deepest:
        tree = branch(moved, price, constant, choice, deadline)
    multipliers = {
        row.name: reduced.multiplier(row, float(value))
        for row, value in zip(reduced.rows, (convex if convex and bent else found).multipliers, strict=True)
    }
    if tree.choice is None and tree.complete:
        return refuted(reduced, deadline, seed)
    return Outcome(
        tree.choice,
        multipliers,
        proof=f"branch and bound over {tree.nodes} nodes" if tree.complete else None,
        messages=None if bent else _rounded(found, reduced.exponent),
        curvature=convex.curvature if convex and bent else None,
        info={"nodes": tree.nodes, "edges": len(field.edges)},
    )


def _plan(
    field: Field, starts: list[Reduced], price: NDArray[np.float64], deadline: Deadline, seed: int
) -> IntArray | None:
    """Local search from plans of the knapsack: without pair terms, and after a bound moved them into the losses."""
    best, value = None, np.inf
    for reduced in starts:
        if best is not None and deadline.passed:
            break
        if not reduced.rows:
            start = reduced.loss.argmin(axis=1)
        else:
            one = len(reduced.rows) == 1 and reduced.limits
            outcome = (hull if one else vector)(reduced, Deadline.after(max(1e-3, 0.3 * deadline.left)), seed)
            if outcome.choice is None:
                continue
            start = outcome.choice
        choice = local_search(field, start, price, deadline, seed)
        if field.value(choice) < value:
            best, value = choice, field.value(choice)
    return best


def _rounded(found: Bound, exponent: int) -> tuple[float, ...] | None:
    if not found.messages.size or found.messages.size > MESSAGES:
        return None
    return tuple(float(f"{v:.{DIGITS}g}") for v in np.ldexp(found.messages, exponent).ravel().tolist())


SOLVER = Solver("pairs", pairs)
