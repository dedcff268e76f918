"""How many units keep their format when the losses are drawn again within their standard errors."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

import solvers
from bitwright.core.plan import Redrawn
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable

#: Cells above which nothing is drawn: 50,000 units would be solved for minutes.
MOST_CELLS = 200_000
DRAWS, SECONDS_A_DRAW, SECONDS = 20, 2.0, 10.0


def redrawn(table: SensitivityTable, problem: Problem, solution: Solution, solver: str, seed: int) -> Redrawn | None:
    """Every loss moved by an independent normal error of its standard error (at least 0), and the problem solved anew
    under the same limits, rules and ties. None for tables that know no errors, of too many cells, or where the rows of
    the problem are finer than the table's; fewer draws where the solver takes its time.
    """
    known = np.isfinite(problem.loss) & (table.stderr > 0) if problem.loss.shape == table.loss.shape else None
    if known is None or not known.any() or table.loss.size > MOST_CELLS or table.loss.shape[1] < 2:
        return None
    random, begun = np.random.default_rng([seed, 0x5EED]), time.monotonic()
    scale, kept, draws = np.where(known, table.stderr, 0.0), np.zeros(problem.n), 0
    while draws < DRAWS and time.monotonic() - begun < SECONDS:
        loss = np.maximum(0.0, problem.loss + scale * random.standard_normal(scale.shape))
        found = solvers.solve(replace(problem, loss=loss), solver, time_limit=SECONDS_A_DRAW, seed=seed)
        if not found.feasible:  # no limit depends on a loss: the time ran out before a choice was found
            return None
        kept += found.choice == solution.choice
        draws += 1
    counts = np.array(table.part_counts)
    unit = np.add.reduceat(kept, np.cumsum(counts) - counts) / (counts * draws)
    rows = problem.resource("bytes").costs()[np.arange(problem.n), solution.choice]
    share = float((rows * kept).sum() / draws / max(1, rows.sum()))
    some = np.flatnonzero(unit < 1 - 1e-9)
    return Redrawn(
        draws=draws, units=float(unit.mean()), bytes=min(1.0, share),
        kept=tuple((int(i), round(float(unit[i]), 6)) for i in some),
    )  # fmt: skip
