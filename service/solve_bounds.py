"""How large a problem of the synchronous routes may be (research/06 C6). Each bound is a setting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitwright.core.errors import InvalidProblem, TooLarge
from bitwright.core.problem import Problem
from bitwright.settings import Settings


@dataclass(frozen=True)
class Bounds:
    """bytes: of an uploaded .npz when unpacked. constraints: limits and rules together. number: largest magnitude."""

    units: int
    formats: int
    constraints: int
    name_chars: int
    number: float
    bytes: int

    @staticmethod
    def of(settings: Settings) -> Bounds:
        return Bounds(
            settings.max_solve_units, settings.max_solve_formats, settings.max_solve_constraints,
            settings.max_name_chars, settings.max_number, NPZ_FACTOR * settings.largest_body,
        )  # fmt: skip

    def check_units(self, units: int) -> None:
        """Raises TooLarge."""
        _at_most("units", units, self.units, "BITWRIGHT_MAX_SOLVE_UNITS")

    def check(self, problem: Problem) -> None:
        """Raises TooLarge, and InvalidProblem for names and numbers."""
        self.check_units(problem.n)
        _at_most("formats", problem.k, self.formats, "BITWRIGHT_MAX_SOLVE_FORMATS")
        constraints = len(problem.limits) + len(problem.rules)
        _at_most("limits and rules", constraints, self.constraints, "BITWRIGHT_MAX_SOLVE_CONSTRAINTS")
        self._check_names(problem)
        self._check_numbers(problem)

    def _check_names(self, problem: Problem) -> None:
        own = [resource.name for resource in problem.resources] + [limit.name for limit in problem.limits]
        for name in (*(problem.unit_names or ()), *(problem.format_names or ()), *own):
            if len(name) > self.name_chars:
                raise InvalidProblem(
                    "a name is too long", expected=f"at most {self.name_chars} characters", got=name[:80],
                    hint="shorten it, or raise BITWRIGHT_MAX_NAME_CHARS",
                )  # fmt: skip

    def _check_numbers(self, problem: Problem) -> None:
        largest = max(abs(problem.extremes.least), abs(problem.extremes.greatest))
        largest = max(largest, float(np.abs(problem.pairs.loss).max(initial=0.0)))
        largest = max([largest, *(abs(float(limit.value)) for limit in problem.limits)])
        largest = max([largest, *(float(np.abs(r.costs()).max()) for r in problem.resources)])
        if largest > self.number:
            raise InvalidProblem(
                "a number of the problem is too large",
                expected=f"magnitudes of at most {self.number:g}", got=f"{largest:g}",
                hint="use a larger unit, or raise BITWRIGHT_MAX_NUMBER",
            )  # fmt: skip


#: An uploaded .npz may unpack to this many times the request cap (numpy files of plain numbers compress about so well).
NPZ_FACTOR = 16


def _at_most(what: str, count: int, limit: int, setting: str) -> None:
    if count > limit:
        raise TooLarge(
            f"the problem has too many {what} for a synchronous solve", expected=f"at most {limit}", got=str(count),
            hint=f"use `bitwright solve` on the command line, or raise {setting}",
        )  # fmt: skip
