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
from solvers.base import LATE, Deadline, Outcome, Solver
from solvers.hull import hull
from solvers.infeasibility import alone
from solvers.one_thread import one_thread
from solvers.pair_convex import convex_bound
from solvers.pair_dual import Bound, bound, plain, priced
from solvers.pair_field import Field
from solvers.pair_search import Branched, branch, local_search
from solvers.reduce import Reduced
from solvers.refute import refuted
from solvers.vector import READING, planned

#: Share of the time for plans; messages beyond this many numbers are left out of the certificate.
SHARE, MESSAGES = 0.5, 1_000_000
#: Share of the time for the convex bound.
CONVEX = 0.5
#: Seconds of a number of the messages in a certificate, about, and of a pair term to be gathered.
CARRIED, GATHERED = 1e-6, 2e-7
#: Groups beyond which no complete search is tried (its depth is theirs).
DEEPEST = 200
#: Significant digits of the messages: any numbers give a bound, and short ones make small files.
DIGITS = 10
#: The largest power of ten that float64 holds exactly.
TENS = 22


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
    taken = READING * reduced.loss.size * len(reduced.rows) + GATHERED * len(reduced.problem.pairs)
    if not deadline.fits(taken):
        start = _unpaired(replace(reduced, pairs=Pairs()), deadline, seed)
        return Outcome(start.choice, start.multipliers, info={"stopped": LATE})
    field = Field.of(reduced)
    carried = CARRIED * 2 * reduced.k * len(field.edges)
    if messaged := deadline.fits(2 * carried):
        deadline = deadline.keeping(carried)
    convex = convex_bound(field, deadline.within(CONVEX * deadline.left)) if messaged else None
    found = bound(field, deadline, seed) if messaged else plain(field, deadline)
    bent = convex is not None and convex.value > found.value
    price, constant = priced(field, found.multipliers)
    moved = field.moved(found.messages) if messaged else field
    starts = [field.without_pairs()] + ([moved.without_pairs()] if len(field.edges) and messaged else [])
    if convex is not None and bent:
        starts = [replace(reduced, loss=convex.tangent, pairs=Pairs()), *starts]
    choice = _plan(field, starts, price, deadline.within(SHARE * deadline.left), seed)
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
        messages=_rounded(found, reduced.exponent) if messaged and not bent else None,
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
            outcome = _unpaired(reduced, deadline.within(0.3 * deadline.left), seed)
            if outcome.choice is None:
                continue
            start = outcome.choice
        choice = local_search(field, start, price, deadline, seed)
        if field.value(choice) < value:
            best, value = choice, field.value(choice)
    return best


def _unpaired(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    one = len(reduced.rows) == 1 and reduced.limits
    return hull(reduced, deadline, seed) if one else planned(reduced, deadline)


def _rounded(found: Bound, exponent: int) -> tuple[float, ...] | None:
    if not found.messages.size or found.messages.size > MESSAGES:
        return None
    value = np.ldexp(found.messages, exponent).ravel()
    power = DIGITS - 1 - np.floor(np.log10(np.abs(value), out=np.zeros(value.size), where=value != 0)).astype(np.int64)
    # One division by an exact power of ten rounds as text would, at a twentieth of its time.
    short = np.rint(value * 10.0 ** np.clip(power, 0, TENS)) / 10.0 ** np.clip(power, 0, TENS)
    for at in np.flatnonzero((power < 0) | (power > TENS)).tolist():
        short[at] = float(f"{value[at]:.{DIGITS}g}")
    return tuple(short.tolist())


SOLVER = Solver("pairs", pairs)
