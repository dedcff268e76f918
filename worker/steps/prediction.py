"""What a plan's KL should turn out as, with an interval, and how much it owes to the draw of its calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import solvers
from bitwright.core.problem import Problem
from bitwright.core.solution import Solution
from bitwright.core.table import SensitivityTable
from sensitivity.doubt import Choice, Losses, predict, stability
from sensitivity.pooling import samples_of
from sensitivity.response import Response

#: Cells above which the plan is not solved again for every resampled table.
MOST_CELLS = 200_000
SECONDS_A_TABLE = 2.0


def prediction(table: SensitivityTable, problem: Problem, solution: Solution, solver: str) -> dict[str, Any]:
    """{"prediction": expected KL with its 95 % interval and the plan's stability}; empty for tables not in nats,
    and for problems that cut units finer than the table does.

    table: its rows are the problem's units. solver: the one that made the solution.
    """
    response, (resampled, signed) = table.provenance.get("response"), samples_of(table)
    if response is None or problem.loss.shape != table.loss.shape:
        return {}

    def again(loss: Losses) -> Choice:
        other = replace(problem, loss=np.where(np.isfinite(problem.loss), loss, np.inf))
        return np.asarray(solvers.solve(other, solver, time_limit=SECONDS_A_TABLE).choice)

    steady = None
    if resampled is not None and len(resampled) and table.loss.size <= MOST_CELLS:
        steady = stability(table.loss, resampled, solution.choice, again)
    found = predict(
        table.loss, table.stderr, solution.choice, Response.from_json(response), resampled=resampled,
        optimism=steady.optimism if steady else 1.0, signed=signed,
    )  # fmt: skip
    return {"prediction": {**found.to_json(), "response": _curve(response), "stability": steady and steady.to_json()}}


def _curve(response: Mapping[str, Any]) -> dict[str, Any]:
    """The fit without its anchors, which the table keeps."""
    return {name: value for name, value in response.items() if name != "points"}
