"""A Problem that a program makes itself: every wrong type is a typed error, at construction."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import InvalidInput, InvalidProblem, InvalidSetting
from bitwright.core.problem import Limit, Pairs, Problem, Resource, Rule, compact_bits
from bitwright.core.problem_file import problem_from_arrays
from solvers import solve
from solvers.catalog import SOLVERS

LOSS = np.array([[4.0, 1.0], [3.0, 1.0]])
BITS = compact_bits([10, 10], [2, 4])
ALL = np.arange(2)


def narrow(kind: type, size: int, rate: int) -> Resource:
    return Resource("bits", size=np.array([size, size], kind), rate=np.array([rate, 2 * rate], kind))


def limited(value: Any, subset: Any = None, units: Any = None) -> Problem:
    return Problem(LOSS, (BITS,), (Limit("bits", value, subset, units),))


def ruled(units: Any, formats: Any, sense: Any = 1, count: Any = 1) -> Problem:
    return Problem(LOSS, rules=(Rule(units, formats, sense, count),))


def paired(unit: Any, form: Any, loss: Any) -> Problem:
    return Problem(LOSS, pairs=Pairs(unit, form, loss))


WRONG: dict[str, Callable[[], object]] = {
    # Regression: products of narrow integers wrapped around, and plans far above their limit were called optimal.
    "sizes of 32 bits": lambda: Problem(LOSS, (narrow(np.int32, 2**20, 2**11),), (Limit("bits", 2**33),)),
    "sizes of 8 bits": lambda: Problem(LOSS, (narrow(np.int8, 100, 2),), (Limit("bits", 700),)),
    "sizes without a sign": lambda: Problem(LOSS, (narrow(np.uint64, 100, 2),)),
    # Regression: fractions of sizes were cut off.
    "sizes with a fraction": lambda: compact_bits([10.9, 10.9], [2, 4]),
    "sizes that are NaN": lambda: compact_bits([np.nan, 1.0], [2, 4]),
    "sizes beyond int64": lambda: compact_bits([10**30, 1], [2, 4]),
    "sizes of text": lambda: compact_bits(["a", "b"], [2, 4]),
    "rate_den with a fraction": lambda: Problem(LOSS, (compact_bits([1, 1], [1, 1], 1.5),)),  # type: ignore[arg-type]
    "loss as a list": lambda: Problem([[1.0, 2.0]]),  # type: ignore[arg-type]
    "costs as a list": lambda: Problem(LOSS, (Resource("b", matrix=[[1, 2], [1, 2]]),)),  # type: ignore[arg-type]
    "no costs": lambda: Problem(LOSS, (Resource("b"),)),
    "tie as a list": lambda: Problem(LOSS, tie=[0, 0]),  # type: ignore[arg-type]
    "tie of flags": lambda: Problem(LOSS, tie=np.array([True, True])),  # type: ignore[arg-type]
    "names that are no text": lambda: Problem(LOSS, unit_names=(1, 2)),  # type: ignore[arg-type]
    "limit as text": lambda: limited("60"),
    "limit None": lambda: limited(None),
    "limit as a flag": lambda: limited(True),
    "limit complex": lambda: limited(60j),
    "limit an array": lambda: limited(np.array([50, 60])),
    # Regression: numpy's narrower NaN is no `float`, and went through.
    "limit NaN of 32 bits": lambda: limited(np.float32("nan")),
    "limit inf of 16 bits": lambda: limited(np.float16("inf")),
    "subset as a list": lambda: limited(60, "a", [0, 1]),
    "subset without units": lambda: limited(60, "a"),
    "rule of lists": lambda: ruled([0, 1], [0]),
    "rule of half a unit": lambda: ruled(ALL, np.array([0]), 1, 0.5),
    "rule of NaN units": lambda: ruled(ALL, np.array([0]), 1, float("nan")),
    "rule of a text": lambda: ruled(ALL, np.array([0]), 1, "1"),
    "pair terms None": lambda: Problem(LOSS, pairs=None),  # type: ignore[arg-type]
    "pair terms of lists": lambda: paired([[0, 1]], [[0, 1]], [1.0]),
    "pair terms of floats": lambda: paired(np.array([[0.0, 1.0]]), np.array([[0, 1]]), np.array([1.0])),
    "ragged losses": lambda: problem_from_arrays({"loss": [[1.0, 2.0], [1.0]]}),
    "a name that is none": lambda: problem_from_arrays({"loss": LOSS, 3: 1}),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_type_is_refused_at_construction(what: str) -> None:
    with pytest.raises(InvalidProblem):
        WRONG[what]()


def test_sizes_may_be_floats_without_a_fraction() -> None:
    assert compact_bits(np.full(2, 10.0), [2.0, 4.0]).size.dtype == np.int64  # type: ignore[union-attr]


def test_limits_of_numpy_are_numbers_of_python_and_their_solution_is_json() -> None:
    """Regression: `Limit("bits", sizes.sum() * 3)` solved, and its solution could not be written."""
    for value in (np.int64(60), np.uint8(60), np.float32(60)):
        solution = solve(limited(value))
        assert json.loads(json.dumps(solution.to_json()))["certificate"]["limits"] == {"bits": 60}


def test_limits_of_float_costs_may_be_beyond_int64() -> None:
    """Regression: costs times 2^40 were refused for their limit."""
    cost = np.array([[2.0, 4.0], [2.0, 4.0]])
    for power in (-900, -40, 0, 40, 70, 900):
        scaled = Problem(
            LOSS, (Resource("b", matrix=np.ldexp(cost, power)),), (Limit("b", float(np.ldexp(6.0, power))),)
        )
        for name in ("hull", "milp", "brute", "dp", "vector"):
            assert solve(scaled, name).choice.tolist() == [1, 0]


@pytest.mark.parametrize("arguments", [{"seed": 1.5}, {"seed": "a"}, {"seed": None}, {"solver": None}, {"solver": 3}])
def test_arguments_of_a_wrong_type(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        solve(limited(60), **arguments)


def test_what_is_no_problem() -> None:
    with pytest.raises(InvalidInput, match="not a problem"):
        solve({"loss": LOSS})  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", ["a", None])
def test_time_limits_that_are_no_numbers(seconds: Any) -> None:
    with pytest.raises(InvalidSetting):
        solve(limited(60), time_limit=seconds)


@pytest.mark.parametrize("name", [entry.name for entry in SOLVERS if not entry.traits["only_covers"]])
@pytest.mark.parametrize("seconds", [float("inf"), 10**400])
def test_any_time_is_as_long_as_one_likes(name: str, seconds: float) -> None:
    """Regression: what has to be told in milliseconds of 32 bits failed in CBC's process, or overflowed."""
    assert solve(limited(np.int64(60)), name, time_limit=seconds, seed=int(np.int64(3))).loss == 4.0
