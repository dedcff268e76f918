"""Tables solved as they lie (nothing to reduce); compact ones may be mapped from a file.

Of compact tables beyond CHECKED units the certificate is made from the solver's own pass (losses summed in float64,
costs in integers): checking it costs several reads of the table, and `bitwright verify` does that with none of this
code. All other answers are checked at once.
"""

from __future__ import annotations

import math
import os
from typing import cast

import numpy as np

from bitwright.core.blocks import CACHED, mapping
from bitwright.core.certificate import ROUNDING, total_loss
from bitwright.core.claim import Certificate
from bitwright.core.problem import IntArray, Problem
from bitwright.core.solution import Solution
from solvers import native
from solvers.base import Deadline
from solvers.reduce import INT_TOP

#: Up to here every answer is checked before it is given.
CHECKED = 1 << 20
#: Tables from here on are worth more threads, each for so many rows; the lists of rounds.hpp serve no more of them.
THREADED = 1 << 22
ROWS_A_THREAD = 1 << 19
MOST_THREADS = 64
#: The summed rounding of the pass, as a share of the magnitudes: the bound is lowered by it.
SUMMED = 1e-14


def streams(problem: Problem) -> bool:
    """Whether a problem `lies_ready` and is compact."""
    return lies_ready(problem) and problem.resource(problem.limits[0].resource).matrix is None


def lies_ready(problem: Problem) -> bool:
    """Whether a problem is one limit of whole costs over all units and nothing else, its losses far from any end."""
    if native.library() is None or len(problem.limits) != 1 or problem.tie is not None:
        return False
    limit = problem.limits[0]
    plain = limit.units is None and problem.resource(limit.resource).integral and problem.centred is problem
    return plain and not problem.rules and not len(problem.pairs) and _moderate(problem)


def _moderate(problem: Problem) -> bool:
    """Far from both ends of float64's range."""
    top = max(abs(problem.extremes.least), problem.extremes.greatest)
    return top == 0.0 or 1e-90 < top < 1e90


def run(
    problem: Problem, deadline: Deadline, seed: int, near: tuple[float, float] = (0.0, np.inf), after: float = 0.0
) -> native.TableAnswer:
    """The compiled solver over a problem that `lies_ready`.

    near: where the multiplier is looked for first; after: seconds of the processor for what comes after.
    """
    limit = problem.limits[0]
    resource = problem.resource(limit.resource)
    return native.solve_table(
        problem.loss,
        max(-1, min(INT_TOP, math.floor(limit.value))),
        matrix=resource.matrix,
        size=resource.size,
        rate=resource.rate,
        sizes=None if resource.size is None else resource.sizes,
        mapped=resource.matrix is None and in_files(problem),
        seconds=deadline.left,
        after=after,
        seed=seed,
        threads=threads(problem),
        near=near,
    )


def threads(problem: Problem) -> int:
    """Threads worth having for a table of this length."""
    if problem.n < THREADED:
        return 1
    return min(MOST_THREADS, problem.n // ROWS_A_THREAD, len(os.sched_getaffinity(0)))


def in_files(problem: Problem) -> bool:
    """Whether pages may be given back: losses AND sizes lie in files, or equal sizes are not read at all.

    Giving back a page of other memory would empty it.
    """
    resource = problem.resource(problem.limits[0].resource)
    assert resource.size is not None
    sizes = resource.sizes.least == resource.sizes.most or mapping(resource.size) is not None
    return sizes and mapping(problem.loss) is not None


def certified(problem: Problem, answer: native.TableAnswer, proof: str, info: dict[str, object]) -> Solution | None:
    """The solution with the certificate of the pass; None when a uniform plan may be better than the answer."""
    limit = problem.limits[0]
    spent = answer.slope * float(limit.value)
    scale = abs(answer.loss + answer.slope * answer.cost) + spent
    bound = answer.bound - answer.slope * (float(limit.value) - np.floor(limit.value)) - SUMMED * scale
    gap = answer.loss - bound
    if gap <= ROUNDING * max(scale, abs(answer.loss)):
        gap, bound = 0.0, min(bound, answer.loss)
    elif answer.status != native.LATE and _uniform_may_win(problem, answer, gap + 2 * SUMMED * scale):
        return None
    proved = gap > 0 and answer.status == native.OPTIMAL
    others = [r for r in problem.resources if r.name != limit.resource]
    choice = cast(IntArray, answer.choice)  # one byte a unit: eight would be more than the table of four formats
    certificate = Certificate(
        status="optimal" if gap == 0 or proved else "bounded",
        loss=answer.loss,
        lower_bound=float(bound),
        gap=float(gap),
        cost={limit.name: answer.cost, **{r.name: r.total(choice) for r in others}},
        limits={limit.name: limit.value},
        multipliers={limit.name: answer.slope},
        proof=proof if proved else None,
    )
    return Solution(choice, answer.loss, certificate, "hull", {**info, "checked": "by its own pass; verify it"})


def _uniform_may_win(problem: Problem, answer: native.TableAnswer, gap: float) -> bool:
    """Whether some feasible uniform plan may have less loss than the answer.

    Every plan pays at least the bound and, in each row, what its format costs above the best at the multiplier; so a
    uniform plan that has paid more than the gap after some rows is out.
    """
    limit = problem.limits[0]
    resource = problem.resource(limit.resource)
    assert resource.rate is not None
    fits = [j for j in range(problem.k) if resource.sizes.total * int(resource.rate[j]) <= limit.value]
    above = np.zeros(len(fits))
    step = max(1, CACHED // problem.k)  # some thousand rows tell it, nearly always
    for begin in range(0, problem.n, step):
        rows = slice(begin, min(begin + step, problem.n))
        value = problem.loss[rows] + answer.slope * resource.costs(rows)
        above += value[:, fits].sum(axis=0) - value.min(axis=1).sum()
        if (above > gap).all():
            return False
    return any(total_loss(problem, np.full(problem.n, j, np.uint8)) < answer.loss for j in fits)
