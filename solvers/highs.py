"""A thin wall around highspy: build a model, solve the relaxation and the integer program, map statuses.

HiGHS looks at the clock between its steps, and a step of a large model takes seconds: such a model is solved in a child
process, which is killed when it oversteps (`run_timed`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray
from solvers import child

#: Entries of the matrix up to which HiGHS is trusted with the clock in this process: beyond, a single step was seen to
#: take 0.7 s on a machine with other work.
LARGE = 8_192
#: Seconds of the processor between two of its looks there.
STEP = 0.04
OPTIMAL, FEASIBLE, INFEASIBLE, UNKNOWN = "optimal", "feasible", "infeasible", "unknown"


@dataclass(frozen=True, eq=False)
class Model:
    """minimise cost.x, low <= A x <= high, 0 <= x <= 1. A by rows: `start`, `index`, `value`. integer: which x."""

    cost: NDArray[np.float64]
    integer: NDArray[np.bool_]
    start: IntArray
    index: IntArray
    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answer:
    status: str
    x: NDArray[np.float64] | None
    duals: NDArray[np.float64]


def run(model: Model, *, integral: bool, seconds: float, seed: int, cost_scale: float = 1.0) -> Answer:
    """One call of HiGHS: one thread, all gaps 0. Losses must come scaled (research/05 section 2)."""
    import highspy

    highs: Any = highspy.Highs()  # type: ignore[no-untyped-call, unused-ignore]
    options = {
        "output_flag": False,
        "threads": 1,
        "random_seed": seed & 0x7FFFFFFF,
        "time_limit": max(0.01, seconds),
        "mip_rel_gap": 0.0,
        "mip_abs_gap": 0.0,
        "primal_feasibility_tolerance": 1e-9,
        "dual_feasibility_tolerance": 1e-9,
        "mip_feasibility_tolerance": 1e-9,
    }
    for name, value in options.items():
        highs.setOptionValue(name, value)
    highs.passModel(_lp(highspy, model, integral, cost_scale))
    highs.run()
    return _answer(highspy, highs, integral)


def run_timed(model: Model, *, integral: bool, seconds: float, seed: int, cost_scale: float) -> Answer:
    """`run` within `seconds`, in a child process for a large model; UNKNOWN when it was killed."""
    if len(model.value) <= LARGE:
        return run(model, integral=integral, seconds=seconds, seed=seed, cost_scale=cost_scale)
    end = time.monotonic() + seconds
    arrays = model_arrays(model, cost_scale=cost_scale, seconds=0.97 * seconds, seed=seed)
    arrays["integral"] = np.array(integral)
    reply = child.call("solvers.highs:answer", arrays, end)
    if reply is None:
        return Answer(UNKNOWN, None, np.zeros(0))
    return Answer(str(reply["status"]), reply.get("x"), reply["duals"])


def model_arrays(model: Model, *, cost_scale: float, seconds: float, seed: int) -> dict[str, NDArray[Any]]:
    """What a child process needs of a model: its arrays by name (costs scaled), `seconds` and `seed`."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(model, name) for name in Model.__dataclass_fields__}
    arrays.update(cost=model.cost * cost_scale, seconds=np.array(seconds), seed=np.array(seed & 0x7FFFFFFF))
    return arrays


def model_of(arrays: child.Arrays) -> Model:
    """The model that `model_arrays` took apart."""
    return Model(**{name: arrays[name] for name in Model.__dataclass_fields__})


def answer(arrays: child.Arrays) -> child.Arrays:
    """In the child: `run`."""
    model = model_of(arrays)
    seconds, seed = float(arrays["seconds"]), int(arrays["seed"])
    found = run(model, integral=bool(arrays["integral"]), seconds=seconds, seed=seed)
    reply: dict[str, NDArray[Any]] = {"status": np.array(found.status), "duals": found.duals}
    return reply if found.x is None else {**reply, "x": found.x}


def _lp(highspy: Any, model: Model, integral: bool, cost_scale: float) -> Any:
    lp = highspy.HighsLp()
    columns = len(model.cost)
    lp.num_col_, lp.num_row_ = columns, len(model.low)
    lp.col_cost_ = model.cost * cost_scale
    lp.col_lower_, lp.col_upper_ = np.zeros(columns), np.ones(columns)
    lp.row_lower_ = np.where(np.isneginf(model.low), -highspy.kHighsInf, model.low)
    lp.row_upper_ = np.where(np.isposinf(model.high), highspy.kHighsInf, model.high)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = model.start.astype(np.int32)
    lp.a_matrix_.index_ = model.index.astype(np.int32)
    lp.a_matrix_.value_ = model.value
    if integral:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[int(flag)] for flag in model.integer]
    return lp


def _answer(highspy: Any, highs: Any, integral: bool) -> Answer:
    status, info = highs.getModelStatus(), highs.getInfo()
    solution = highs.getSolution()
    duals = np.array(solution.row_dual, np.float64)
    known = highspy.HighsModelStatus
    if status in (known.kInfeasible, known.kUnboundedOrInfeasible):
        return Answer(INFEASIBLE, None, duals)
    if info.primal_solution_status != 2:  # 2: a feasible point (HiGHS kSolutionStatusFeasible)
        return Answer(UNKNOWN, None, duals)
    x = np.array(solution.col_value, np.float64)
    done = status == known.kOptimal and (not integral or info.mip_gap <= 0.0)
    return Answer(OPTIMAL if done else FEASIBLE, x, duals)
