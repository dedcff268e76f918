"""Damaged problems give typed errors or verified answers; `make fuzz` is the long form."""

from __future__ import annotations

import pytest

from tests.solvers.fuzz import attempt

#: Found by the long form: a zip directory that points before the file, a cell a trillion times its limit, 2^63.
ONCE_WRONG = [(0, 1241), (3, 600), (3, 1226), (1, 887), (8, 14)]


@pytest.mark.parametrize(("seed", "index"), ONCE_WRONG)
def test_what_was_once_wrong(seed: int, index: int) -> None:
    assert attempt(seed, index) in {"refused", "optimal", "infeasible"}


def test_damaged_problems_are_refused_or_answered() -> None:
    ends = {attempt(2026, index) for index in range(800)}
    assert {"refused", "optimal", "infeasible"} <= ends
