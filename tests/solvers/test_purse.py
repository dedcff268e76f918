"""All searches of a small table share one purse of counted work: those after each other end within two seconds."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.certificate import verify
from solvers import native, solve
from tests.solvers.cost_tables import problem
from tests.solvers.instances import instance
from tests.solvers.test_counts import levelled

pytestmark = pytest.mark.skipif(native.library() is None, reason="the native library is not built")


@pytest.mark.parametrize(("kind", "seed"), [("columns", 2), ("both", 3)])
def test_searches_after_each_other_share_a_purse(kind: str, seed: int) -> None:
    """Such problems took up to 2.6 s: each search had a limit of its own. Now no search begins with an empty purse."""
    given = problem(*levelled(kind, "equal", 2000, 3, 16, 0.05, seed))
    first = solve(given, "hull")
    spent = native.required().bw_purse_spent()
    assert 1.0 < spent < 1.25
    assert verify(given, first.choice, first.certificate).ok
    again = solve(given, "hull")
    assert np.array_equal(first.choice, again.choice)
    assert first.certificate.lower_bound == again.certificate.lower_bound
    assert native.required().bw_purse_spent() == spent


def test_an_easy_table_spends_next_to_nothing() -> None:
    solve(instance("layers", 2000, 4, 0), "hull")
    assert native.required().bw_purse_spent() < 0.01


@pytest.mark.parametrize(("k", "seed"), [(4, 0), (4, 3), (4, 5), (4, 6), (12, 1), (12, 6)])
def test_branches_that_cannot_be_closed_are_looked_at_in_brief(k: int, seed: int) -> None:
    """Heavy tails spent 0.028 to 0.089: a millisecond a branch, and sets of odd cells before a proof."""
    assert solve(instance("tails", 224, k, seed), "hull").certificate.status == "optimal"
    assert native.required().bw_purse_spent() < 0.015


@pytest.mark.parametrize("seed", range(4))
def test_an_affordable_proof_comes_before_sets_of_odd_cells(seed: int) -> None:
    """Nearly equal slopes spent 0.037 to 0.090."""
    assert solve(instance("correlated", 224, 4, seed), "hull").certificate.status == "optimal"
    assert native.required().bw_purse_spent() < 0.03


def test_a_purse_is_of_one_table() -> None:
    """A hard table before leaves nothing out of what an easy one is proved by."""
    solve(problem(*levelled("columns", "equal", 2000, 3, 16, 0.05, 2)), "hull")
    assert solve(instance("tails", 224, 4, 0), "hull").certificate.status == "optimal"
