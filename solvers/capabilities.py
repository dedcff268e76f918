"""What a problem asks for and what a solver declares, so that `auto` and the contract suite can compare them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from bitwright.core.catalog import Entry
from bitwright.core.errors import Unsupported
from bitwright.core.problem import Problem
from solvers.covers import find_cover

MANY = 64
#: What a solver may declare of its loss beyond being feasible; the contract suite holds it to that.
ORDER, LOSS_UNIT, COST_UNIT, BUDGET = "order of units and formats", "unit of loss", "unit of cost", "larger budget"
UNITS = (LOSS_UNIT, COST_UNIT)


@dataclass(frozen=True)
class Features:
    """What a problem uses."""

    groups: int
    cells: int
    limits: int
    subset_limits: bool
    rules: bool
    pairs: bool
    covers: bool
    states: float


@dataclass(frozen=True)
class Capabilities:
    """What a solver takes. `limits`: how many at once; `max_states`: most choices it enumerates; `exact`: can prove.

    made_for: the feature (a name of `Features`) without which `auto` passes the solver over. only_covers: its rules
    must be exact covers (`solvers.covers`). continuous: its plan is a continuous relaxation's, rounded.
    steady: under which changes the loss stays the same (BUDGET: is never worse); all of them for exact solvers.
    large: cells (groups x formats) beyond which `auto` prefers a solver that gives a bound only, but in bounded time.
    often: mostly proves its answer, and soon: `auto` asks it before an exact solver that gets slow.
    """

    limits: int = 1
    subset_limits: bool = True
    rules: bool = False
    pairs: bool = False
    ties: bool = True
    exact: bool = False
    continuous: bool = False
    made_for: str = ""
    only_covers: bool = False
    max_states: float = float("inf")
    large: float = float("inf")
    often: bool = False
    steady: tuple[str, ...] = ()

    def keeps(self, change: str) -> bool:
        """Whether the solver declares that its loss stays the same under this change."""
        return change in self.steady

    def missing(self, features: Features) -> list[str]:
        """Every feature of the problem that is not supported, in words."""
        found = []
        if features.limits > self.limits:
            found.append(f"{features.limits} limits at once (at most {self.limits})")
        if features.subset_limits and not self.subset_limits:
            found.append("a limit over some units only")
        if features.rules and not self.rules:
            found.append("count rules")
        if self.only_covers and not features.covers:
            found.append("no exact cover of bundles" if not features.rules else "rules that are not exact covers")
        if features.pairs and not self.pairs:
            found.append("pair terms")
        if features.states > self.max_states:
            found.append(f"{features.states:.3g} choices (at most {self.max_states:.3g})")
        return found


def traits(**declared: Any) -> dict[str, Any]:
    """Catalog traits of a solver: every capability by name, JSON-ready."""
    if declared.get("exact"):
        declared = {"steady": (ORDER, *UNITS, BUDGET), **declared}
    capabilities = Capabilities(**declared)
    values = {name: getattr(capabilities, name) for name in Capabilities.__dataclass_fields__}
    words = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {name: None if value == float("inf") else value for name, value in words.items()}


@cache
def capabilities(entry: Entry) -> Capabilities:
    values: dict[str, Any] = {n: float("inf") if value is None else value for n, value in entry.traits.items()}
    return Capabilities(**{**values, "steady": tuple(values["steady"])})


def features(problem: Problem) -> Features:
    return Features(
        groups=problem.groups,
        cells=problem.groups * problem.k,
        limits=len(problem.limits),
        subset_limits=any(limit.units is not None for limit in problem.limits),
        rules=bool(problem.rules),
        pairs=len(problem.pairs) > 0,
        covers=find_cover(problem) is not None,
        states=_states(problem),
    )


def _states(problem: Problem) -> float:
    """Choices that forbidden cells and ties leave."""
    if not problem.extremes.forbids:
        doublings = problem.groups * math.log2(problem.k)
    else:
        allowed = np.isfinite(problem.loss)
        if problem.tie is not None:
            merged = np.ones((problem.groups, problem.k), bool)
            np.logical_and.at(merged, problem.group_index, allowed)
            allowed = merged
        doublings = float(np.log2(allowed.sum(axis=1)).sum())
    return 2.0**doublings if doublings < sys.float_info.max_exp else math.inf


def require_support(name: str, problem: Problem) -> None:
    """Raise Unsupported when the named solver does not declare a feature of the problem."""
    from solvers.catalog import SOLVERS

    found = capabilities(SOLVERS.get(name)).missing(features(problem))
    if found:
        able = [e.name for e in SOLVERS if not capabilities(e).missing(features(problem))]
        raise Unsupported(
            f"solver '{name}' does not take this problem",
            expected="a problem of the kind that it declares (`bitwright solvers`)",
            got=", ".join(found),
            hint=f"use solver 'auto'{' or ' + ', '.join(repr(a) for a in able) if able else ''}",
        )
