"""How a foreign program's word becomes an `Outcome`: the same steps for CBC, HiGHS through PuLP, CP-SAT and MathOpt.

Losses are scaled by a power of two so that the program's absolute tolerances mean nothing (research/05 section 2), both
gaps are 0, the caller's clock rules, and the plan is checked in integers. Multipliers, and the plan when the program
has none or a worse one, come from `vector` (`pairs` where there are pair terms).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bitwright.core.problem import IntArray
from solvers import child
from solvers.base import Deadline, Outcome
from solvers.highs import INFEASIBLE, OPTIMAL, UNKNOWN, model_arrays
from solvers.infeasibility import alone
from solvers.linear_model import build, building
from solvers.pairs import CARRIED, first
from solvers.reduce import Reduced
from solvers.refute import refuted
from solvers.vector import planned

#: Loss above the unlimited optimum after scaling, and the largest loss that a program may then see.
EXCESS, LARGEST = 1e4, 1e8
#: Share of the time for multipliers and a first plan, and of the rest that a program is given before it is killed.
START, SHARE = 0.3, 0.95
#: Seconds of the processor that it takes to kill a program and to wait for its end, about.
KILLED = 1e-2


@dataclass(frozen=True, eq=False)
class Reply:
    """status: of `solvers.highs`. choice: (groups,) or None."""

    status: str
    choice: IntArray | None = None


@dataclass(frozen=True)
class Backend:
    """run(reduced, scale, deadline, seed) minimises `scale` times the losses. proof: given where 'optimal' is one."""

    label: str
    run: Callable[[Reduced, float, Deadline, int], Reply]
    proof: str | None = None


def by_child(target: str) -> Callable[[Reduced, float, Deadline, int], Reply]:
    """A `run` that hands the 0-1 program to "module:function" in a child process (`highs.model_arrays`)."""

    def run(reduced: Reduced, scale: float, deadline: Deadline, seed: int) -> Reply:
        program = build(reduced, reduced.rows)
        arrays = model_arrays(program.model, cost_scale=scale, seconds=SHARE * deadline.left, seed=seed)
        reply = child.call(target, arrays, deadline.end)
        if reply is None:
            return Reply(UNKNOWN)
        x = reply.get("x")
        return Reply(str(reply["status"]), None if x is None else program.choice(x, reduced.groups))

    return run


def outside(reduced: Reduced, deadline: Deadline, seed: int, backend: Backend) -> Outcome:
    """Several limits and rules, and pair terms where the backend takes them."""
    if alone(reduced) is not None:
        return refuted(reduced, deadline, seed)
    start = _start(reduced, deadline.within(min(START * deadline.seconds, deadline.left)), seed)
    deadline = deadline.keeping(KILLED + CARRIED * len(start.messages or ()))
    reply = Reply(UNKNOWN)
    if deadline.fits(building(reduced, len(reduced.rows))):
        reply = backend.run(reduced, _scale(reduced, start.choice), deadline, seed)
    if reply.status == INFEASIBLE and start.choice is None:
        return refuted(reduced, deadline, seed)
    info = {**start.info, backend.label: reply.status}
    kept = reply.choice is not None and all(row.holds(reply.choice) for row in reduced.rows)
    if not kept or reply.choice is None:
        return replace(start, info={**info, "plan": "start"})
    if start.choice is not None and reduced.objective(start.choice) < reduced.objective(reply.choice):
        return replace(start, info={**info, "plan": "start"})
    done = reply.status == OPTIMAL and backend.proof is not None
    return replace(start, choice=reply.choice, proof=backend.proof if done else None, info=info)


def _start(reduced: Reduced, deadline: Deadline, seed: int) -> Outcome:
    if len(reduced.problem.pairs):
        return first(reduced, deadline, seed)
    return planned(reduced, deadline)


def _scale(reduced: Reduced, choice: IntArray | None) -> float:
    """Power of two that brings the excess of the known plan over the unlimited optimum to about EXCESS."""
    finite = np.isfinite(reduced.loss)
    least = reduced.loss.min(axis=1)
    spread = np.where(finite, reduced.loss - least[:, None], 0.0)
    largest = float(max(spread.max(), np.abs(reduced.pairs.loss).max(initial=0.0)))
    if not largest > 0:
        return 1.0
    excess = largest
    if choice is not None:
        excess = abs(reduced.objective(choice) - float(least.sum()))
    if not excess > 1e-12 * largest:
        excess = largest
    return 2.0 ** min(math.frexp(EXCESS / excess)[1], math.frexp(LARGEST / largest)[1])
