"""`convex`: continuous relaxations through cvxpy, with any further linear limits.

As a solver: each group takes a mixture of formats; the relaxation's duals are the multipliers of the certificate, and
the plan is the mixture repaired to whole formats. cvxpy does not look at the clock while it compiles, so it runs in a
child process. As a library: `continuous_bits`, the water-filling program of BAQ and Q-Palette (research/01 sections 1
and 2) under several linear limits, and `rounded_bits`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.certificate import impossible
from bitwright.core.errors import Infeasible, InvalidProblem, OutOfResources
from solvers import child
from solvers.base import LATE, Deadline, Outcome, Solver
from solvers.dual import Rows
from solvers.highs import INFEASIBLE, OPTIMAL, UNKNOWN, model_arrays, model_of
from solvers.infeasibility import alone
from solvers.linear_model import build, building
from solvers.milp import mean_scale, row_multipliers
from solvers.one_thread import one_thread
from solvers.reduce import Reduced
from solvers.refute import refuted
from solvers.repair import repair
from solvers.vector import READING, planned

Floats = NDArray[np.float64]
#: Share of the time for the relaxation; the rest is for the plan.
SHARE = 0.6
LN4 = float(np.log(4.0))


@one_thread()
def convex(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    """Several limits and rules. The bound and plan are those of `vector` when cvxpy has no answer in time."""
    if alone(reduced) is not None:
        return refuted(reduced, deadline, seed)
    if not reduced.rows:
        return Outcome(reduced.loss.argmin(axis=1))
    if not deadline.fits(building(reduced, len(reduced.rows)) / SHARE):
        found = planned(reduced, deadline)
        return replace(found, proof=None, info={"cvxpy": UNKNOWN, "plan": "vector"})
    program = build(reduced, reduced.rows)
    scale = mean_scale(program)
    seconds = SHARE * deadline.left
    arrays = model_arrays(program.model, cost_scale=scale, seconds=seconds, seed=seed)
    reply = child.call("solvers.convex:answer", arrays, deadline.end - deadline.left + seconds)
    status = UNKNOWN if reply is None else str(reply["status"])
    if status == INFEASIBLE:
        refusal = refuted(reduced, deadline, seed)
        if impossible(reduced.problem, refusal.multipliers):  # proved anew: a tolerance of Clarabel is no proof
            return refusal
    if reply is None or status != OPTIMAL:
        found = planned(reduced, deadline)
        return Outcome(found.choice, found.multipliers, info={"cvxpy": status, "plan": "vector"})
    multipliers = row_multipliers(reduced, program, reply["duals"], scale)
    if not deadline.fits(READING * reduced.loss.size * len(reduced.rows)):
        return Outcome(None, multipliers, info={"cvxpy": status, "stopped": LATE})
    rows = Rows.of(reduced)
    duals = reply["duals"][reduced.groups : reduced.groups + len(reduced.rows)]
    prices = np.abs(duals) / (scale * program.scale) * rows.scale
    choice = repair(reduced, rows, prices, deadline.within(0.9 * deadline.left))
    return Outcome(choice, multipliers, info={"cvxpy": status})


def answer(arrays: child.Arrays) -> child.Arrays:
    """In the child: the linear relaxation by Clarabel, with duals in the sign of HiGHS (<= rows at most 0)."""
    import cvxpy as untyped
    from scipy.sparse import csr_array

    cvxpy: Any = untyped
    model = model_of(arrays)
    whole = csr_array((model.value, model.index, model.start), shape=(len(model.low), len(model.cost)))
    x = cvxpy.Variable(len(model.cost))
    equal, least, most = model.low == model.high, np.isposinf(model.high), np.isneginf(model.low)
    constraints, places = [x >= 0], []
    for rows, side, sense in ((equal, model.low, 0), (least & ~equal, model.low, 1), (most & ~equal, model.high, -1)):
        if rows.any():
            left = whole[np.flatnonzero(rows)] @ x
            constraints.append(left == side[rows] if sense == 0 else sense * left >= sense * side[rows])
            places.append((np.flatnonzero(rows), sense))
    program = cvxpy.Problem(cvxpy.Minimize(model.cost @ x), constraints)
    duals = np.zeros(len(model.low))
    try:
        program.solve(solver=cvxpy.CLARABEL, time_limit=float(arrays["seconds"]), tol_gap_rel=1e-10, tol_gap_abs=1e-10)
    except cvxpy.error.SolverError:  # Clarabel gave up on numbers that it cannot handle; `vector` answers, and says so
        return {"status": np.array(UNKNOWN), "duals": duals}
    names = {"optimal": OPTIMAL, "optimal_inaccurate": OPTIMAL, "infeasible": INFEASIBLE}
    if program.status in ("optimal", "optimal_inaccurate"):
        for constraint, (rows, sense) in zip(constraints[1:], places, strict=True):
            duals[rows] = constraint.dual_value * (sense or -1)
    return {"status": np.array(names.get(program.status, UNKNOWN)), "duals": duals}


@dataclass(frozen=True, eq=False)
class Bits:
    """bits (n,); prices (m,): fall of the loss per unit of each limit (its dual), >= 0; loss: sum of c 4^-bits."""

    bits: Floats
    prices: Floats
    loss: float


def continuous_bits(c: Any, use: Any, limits: Any, lo: Any = 0.0, hi: Any = 16.0) -> Bits:
    """minimise sum c_i 4^-b_i  subject to  use . b <= limits,  lo <= b <= hi.

    c (n,) > 0; use (m, n) >= 0, such as the weights of each unit, or the milliseconds that each bit costs; limits (m,).
    With one limit this is `water_filling.fill`. Raises InvalidProblem, Infeasible (when `lo` alone breaks a limit) and
    OutOfResources when the solver gives up.
    """
    import cvxpy as untyped

    cvxpy: Any = untyped
    c, use, limits = (np.asarray(a, np.float64) for a in (c, use, limits))
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), c.shape) for bound in (lo, hi))
    if c.ndim != 1 or not len(c) or use.shape != (len(limits), len(c)):
        got = f"{c.shape}, {use.shape}, {limits.shape}"
        raise InvalidProblem("c, use and limits do not fit", expected="(n,), (m, n), (m,)", got=got)
    if not (np.isfinite(c).all() and (c > 0).all() and np.isfinite(use).all() and (use >= 0).all()):
        raise InvalidProblem("a loss or a use cannot be used", expected="finite losses > 0 and finite uses >= 0")
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all() and np.isfinite(limits).all()):
        raise InvalidProblem("the bounds make no sense", expected="finite limits and finite lo <= hi")
    least = use @ low
    if (least > limits * (1 + 1e-12)).any():
        worst = int((least - limits).argmax())
        raise Infeasible(
            "the fewest bits break a limit", expected=f"limit {worst} at least {least[worst]}",
            got=str(limits[worst]), smallest_limit=float(least[worst]),
        )  # fmt: skip
    # Losses relative to the largest at a typical depth, uses relative to their limits: all numbers near 1.
    scale = np.where(use.max(axis=1) > 0, use.sum(axis=1), 1.0)
    depth = float(np.clip((limits / scale).min(), low.mean(), high.mean()))
    unit = float(np.mean(c) * 4.0**-depth)
    b = cvxpy.Variable(len(c))
    loss = cvxpy.sum(cvxpy.exp(np.log(c / unit) - LN4 * b)) / len(c)
    spent = (use / scale[:, None]) @ b <= limits / scale
    program = cvxpy.Problem(cvxpy.Minimize(loss), [spent, b >= low, b <= high])
    program.solve(solver=cvxpy.CLARABEL, tol_gap_rel=1e-12, tol_gap_abs=1e-13, tol_feas=1e-12)
    if program.status not in ("optimal", "optimal_inaccurate"):
        raise OutOfResources("the convex solver gave up", got=program.status, hint="scale the losses and uses")
    bits = np.clip(np.asarray(b.value, np.float64), low, high)
    prices = np.maximum(0.0, np.asarray(spent.dual_value, np.float64)) * unit * len(c) / scale
    return Bits(bits, prices, float((c * 4.0**-bits).sum()))


def rounded_bits(c: Any, use: Any, limits: Any, bits: Any, hi: Any = 16) -> NDArray[np.int64]:
    """Whole bits within every limit: all floored, then one bit more where it saves most for what it uses.

    Shapes as in `continuous_bits`. Units whose next bit fits no more are passed over.
    """
    c, use, limits = (np.asarray(a, np.float64) for a in (c, use, limits))
    value: NDArray[np.int64] = np.floor(np.asarray(bits, np.float64) + 1e-9).astype(np.int64)
    top = np.broadcast_to(np.asarray(hi, np.float64), c.shape)
    left = limits - use @ value + 1e-12 * np.abs(limits)
    price = (use / np.maximum(limits, 1e-300)[:, None]).sum(axis=0)
    queue = [(-0.75 * c[i] * 4.0 ** -float(value[i]) / max(price[i], 1e-300), i) for i in range(len(c))]
    heapq.heapify(queue)
    while queue:
        _, i = heapq.heappop(queue)
        if value[i] + 1 <= top[i] and (use[:, i] <= left).all():
            value[i] += 1
            left = left - use[:, i]
            heapq.heappush(queue, (-0.75 * c[i] * 4.0 ** -float(value[i]) / max(price[i], 1e-300), i))
    return value


SOLVER = Solver("convex", convex)
