"""Solution: what a solver returns, and its file form (choices of more than 20,000 units go to an .npz beside it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.canonical import write_json
from bitwright.core.certificate import Verdict, verify
from bitwright.core.claim import Certificate
from bitwright.core.errors import Infeasible, InvalidPlan
from bitwright.core.problem import IntArray, Problem
from bitwright.core.problem_file import parse_json
from bitwright.core.sidecar import load_array, save_array

SIDECAR_UNITS = 20_000


@dataclass(frozen=True, eq=False)
class Solution:
    """choice: (n,) int64 format index of each unit; loss: exact loss. Empty choice when infeasible.

    Beyond a million units `hull` gives the choice as uint8.

    info: what `auto` chose and why, passes, seconds: for people, never for proofs.
    """

    choice: IntArray
    loss: float | None
    certificate: Certificate
    solver: str
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        return self.certificate.status != "infeasible"

    def require(self) -> Solution:
        """This solution, or the Infeasible error that says what the smallest limit is."""
        if self.feasible:
            return self
        smallest = dict(self.certificate.smallest_limit or {})
        raise Infeasible(
            "no choice fits the limits",
            expected=f"at least {', '.join(f'{k} = {v}' for k, v in smallest.items()) or 'looser rules'}",
            got=", ".join(f"{k} = {v}" for k, v in self.certificate.limits.items()) or None,
            hint=self.certificate.blame or "raise the limit, or allow cheaper formats",
            smallest_limit=smallest,
        )

    def to_json(self, choice: Any = None) -> dict[str, Any]:
        """choice: what stands for the choice there; by default the choice itself."""
        return {
            "choice": self.choice.tolist() if choice is None else choice,
            "loss": self.loss,
            "certificate": self.certificate.to_json(),
            "solver": self.solver,
            **({"info": dict(self.info)} if self.info else {}),
        }

    def save(self, path: str | Path) -> None:
        path = Path(path)
        long = len(self.choice) > SIDECAR_UNITS
        write_json(path, self.to_json(save_array(path, "choice", self.choice) if long else None))


def solution_from_json(data: Any, *, folder: Path | None = None) -> Solution:
    """Raises InvalidPlan. `folder` is where a choice sidecar is looked for."""
    if not isinstance(data, dict) or "choice" not in data or not isinstance(data.get("certificate"), dict):
        raise InvalidPlan("this is not a solution", expected="an object with choice, loss, certificate and solver")
    raw = data["choice"]
    choice = _choice(load_array(raw, "choice", folder) if isinstance(raw, dict) else raw)
    loss = data.get("loss")
    if loss is not None and not isinstance(loss, int | float):
        raise InvalidPlan("the loss must be a number", got=repr(loss)[:40])
    info = data.get("info")
    return Solution(
        choice,
        loss,
        Certificate.from_json(data["certificate"]),
        str(data.get("solver", "")),
        info if isinstance(info, dict) else {},
    )


def _choice(raw: Any) -> IntArray:
    """int64 (n,). Numbers that are not whole are refused, not cut: the checker must see what the file says."""
    try:
        array = np.asarray(raw) if raw is not None and len(raw) else np.zeros(0, np.int64)
        if array.dtype == np.uint8:
            return array  # as `hull` gives it
        if array.dtype.kind in "iu":
            return array.astype(np.int64, casting="same_kind" if array.dtype.kind == "i" else "unsafe")
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidPlan("the choice must be a list of integers", got=str(error)[:80]) from error
    raise InvalidPlan(
        "the choice must be a list of integers", got=f"{array.dtype} such as {array.reshape(-1)[:1]}"[:80]
    )


def load_solution(path: str | Path) -> Solution:
    path = Path(path)
    if not path.is_file():
        raise InvalidPlan("there is no such file", got=str(path))
    return solution_from_json(parse_json(path.read_bytes()), folder=path.parent)


def verify_solution(problem: Problem, solution: Solution) -> Verdict:
    """The independent check of the certificate, and that the solution's own `loss` is the certificate's."""
    verdict = verify(problem, solution.choice, solution.certificate)
    if solution.loss == solution.certificate.loss:
        return verdict
    words = f"loss is {solution.loss!r}, the certificate says {solution.certificate.loss!r}"
    return replace(verdict, ok=False, failures=(*verdict.failures, words))


def uniform_choices(problem: Problem) -> list[tuple[int, IntArray]]:
    """(format, choice) of every uniform plan that respects forbidden cells; the caller checks limits and rules."""
    allowed = np.isfinite(problem.loss).all(axis=0) if problem.extremes.forbids else np.ones(problem.k, bool)
    return [(j, np.full(problem.n, j, np.int64)) for j in np.flatnonzero(allowed).tolist()]


__all__ = ["SIDECAR_UNITS", "Solution", "load_solution", "solution_from_json", "uniform_choices", "verify_solution"]
