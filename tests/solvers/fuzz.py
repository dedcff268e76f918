"""Damaged problems: only typed errors come out, and what is taken is answered with a certificate that verifies.

python -m tests.solvers.fuzz --count 20000 --seed 7      # the long form
"""

from __future__ import annotations

import argparse
import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bitwright.core.certificate import verify
from bitwright.core.errors import BitwrightError
from bitwright.core.problem import Problem
from bitwright.core.problem_file import (
    parse_json,
    problem_from_arrays,
    problem_from_json,
    problem_to_arrays,
    problem_to_json,
    read_npz,
)
from solvers import solve
from tests.solvers.random_problems import random_problem

EXTREMES = [np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0, -1, 0, 1, 2**31, 2**62, 2**63 - 1, -(2**63)]
TYPES = ["f2", "f4", "f8", "g", ">f8", "i1", "u1", "i4", "i8", "u8", ">i8", "?", "c16", "U3", "S3", "M8[s]", "O"]


def _value(array: np.ndarray, rng: np.random.Generator) -> Any:
    changed = array.astype(np.float64) if array.dtype.kind in "iuf" and rng.random() < 0.5 else array.copy()
    if changed.size and changed.dtype.kind in "iuf":
        with np.errstate(all="ignore"):
            extreme = np.array(EXTREMES[rng.integers(len(EXTREMES))])
            changed.reshape(-1)[rng.integers(changed.size)] = extreme.astype(changed.dtype)
    return changed


def _type(array: np.ndarray, rng: np.random.Generator) -> Any:
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
            return array.astype(TYPES[rng.integers(len(TYPES))])
    except (ValueError, TypeError, OverflowError, RuntimeError):
        return array


def _shape(array: np.ndarray, rng: np.random.Generator) -> Any:
    array = np.atleast_1d(array)
    shapes = [
        array[None],
        array.reshape(-1),
        array.T,
        array[:0],
        array[:-1],
        np.r_[array, array],
        array.reshape(-1)[:1],
    ]
    return shapes[rng.integers(len(shapes))]


CHANGES: list[Callable[[np.ndarray, np.random.Generator], Any]] = [_value, _value, _type, _shape]


def damaged(problem: Problem, rng: np.random.Generator) -> dict[str, Any]:
    """The arrays of a problem with one to three things wrong (or by chance still right)."""
    arrays: dict[str, Any] = dict(problem_to_arrays(problem))
    for _ in range(rng.integers(1, 4)):
        name = sorted(arrays)[rng.integers(len(arrays))]
        kind = rng.random()
        if kind < 0.1:
            del arrays[name]
        elif kind < 0.2:
            arrays[name[:-1] or "x"] = arrays.pop(name)
        else:
            array = np.asarray(arrays[name])
            arrays[name] = CHANGES[rng.integers(len(CHANGES))](np.atleast_1d(array) if kind < 0.6 else array, rng)
        if not arrays:
            return {"loss": 1}
    return arrays


def _bytes(raw: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.integers(1, 8)):
        data[rng.integers(len(data))] = rng.integers(256)
    return bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)


def attempt(seed: int, index: int) -> str:
    """What became of one damaged problem; raises what is no BitwrightError, and AssertionError for a wrong answer."""
    rng = np.random.default_rng([seed, index])
    whole = random_problem(rng)
    try:
        kind = rng.random()
        if kind < 0.6:
            problem = problem_from_arrays(damaged(whole, rng))
        elif kind < 0.8:
            file = io.BytesIO()
            np.savez(file, **problem_to_arrays(whole))
            problem = problem_from_arrays(read_npz(io.BytesIO(_bytes(file.getvalue(), rng))))
        else:
            problem = problem_from_json(parse_json(_bytes(json.dumps(problem_to_json(whole)).encode(), rng)))
    except BitwrightError:
        return "refused"
    try:
        solution = solve(problem, time_limit=5)
    except BitwrightError as error:
        return type(error).__name__
    verdict = verify(problem, solution.choice, solution.certificate)
    assert verdict.ok, verdict.failures
    return solution.certificate.status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    ends: dict[str, int] = {}
    for index in range(args.count):
        try:
            end = attempt(args.seed, index)
        except Exception as error:
            raise SystemExit(f"problem {index} of seed {args.seed}: {error!r}") from error
        ends[end] = ends.get(end, 0) + 1
    print(f"{args.count} damaged problems of seed {args.seed}: {ends}")


if __name__ == "__main__":
    main()
