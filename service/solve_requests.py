"""Bodies of the synchronous routes: what may be asked of a warm solver process, and how each is run there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitwright.core.errors import UnknownName
from bitwright.core.problem import Problem
from bitwright.core.problem_check import INT64_MAX
from bitwright.core.requests import Name, invalid_members

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
TieKind = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z_]+$")]
Number = Annotated[int, Field(ge=-INT64_MAX, le=INT64_MAX)] | float
#: Shortest time limit taken: a solver must at least be able to look at the problem once.
MIN_SECONDS = 0.1


class Synchronous(BaseModel):
    """Exactly one of `problem` and `table`.

    `limits` sets or replaces limits by name, so one table serves every budget.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    problem: dict[str, Any] | Digest | None = Field(
        default=None, description="a problem in its JSON form (docs/problem.md), or the digest of an uploaded file"
    )
    table: Digest | None = Field(default=None, description="digest of a stored sensitivity table")
    ties: tuple[TieKind, ...] = Field(
        default=(), max_length=16, description="tie kinds for a table, such as qkv, gate_up"
    )
    engine: Name | None = Field(
        default=None, description="for a table: cut the menu to what this engine loads, and tie what it fuses"
    )
    limits: dict[str, Number] = Field(default_factory=dict, max_length=64, description="limit by resource name")
    seed: int = Field(default=0, ge=0, lt=2**31)

    def run(self, problem: Problem, seconds: float) -> dict[str, Any]:
        """The answer, in a process that may import solvers. seconds: wall limit of the caller."""
        raise UnknownName("this request cannot be run")


class SolveRequest(Synchronous):
    solver: Name = Field(default="auto", description="a name of GET /v1/solvers, or auto")
    time_limit: float = Field(default=10.0, ge=MIN_SECONDS, le=300, description="seconds")

    def run(self, problem: Problem, seconds: float) -> dict[str, Any]:
        from solvers import solve

        limit = min(self.time_limit, max(MIN_SECONDS, seconds - 1))
        return solve(problem, self.solver, time_limit=limit, seed=self.seed).to_json()


class FrontierRequest(Synchronous):
    limit: Name | None = Field(default=None, description="limit or resource; needed when there are several")
    points: int = Field(default=1000, ge=2, le=10_000, description="at most about this many, evenly spread over cost")
    at: tuple[Number, ...] = Field(default=(), max_length=64, description="budgets whose plans are wanted too")

    def run(self, problem: Problem, seconds: float) -> dict[str, Any]:
        from solvers.frontier import frontier

        found = frontier(problem, self.limit)
        each = max(MIN_SECONDS, (seconds - 1) / max(1, len(self.at)))
        plans = [found.at(value, time_limit=each).to_json() for value in self.at]
        return {**found.to_json(self.points), "solutions": plans} if plans else found.to_json(self.points)


class CheckRequest(Synchronous):
    """An uploaded problem file, read once before it is kept."""

    def run(self, problem: Problem, seconds: float) -> dict[str, Any]:
        del seconds
        return {"units": problem.n, "formats": problem.k}


_REQUESTS: Mapping[str, type[Synchronous]] = {
    "solve": SolveRequest,
    "frontier": FrontierRequest,
    "check": CheckRequest,
}


def parse_solve(operation: str, data: Any) -> Synchronous:
    """Raises InvalidInput with one JSON pointer for each wrong member."""
    try:
        return _REQUESTS[operation].model_validate(data)
    except ValidationError as error:
        raise invalid_members(error) from error
