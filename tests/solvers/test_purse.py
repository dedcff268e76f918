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


def test_a_purse_is_of_one_table() -> None:
    """A hard table before leaves nothing out of what an easy one is proved by."""
    solve(problem(*levelled("columns", "equal", 2000, 3, 16, 0.05, 2)), "hull")
    assert solve(instance("tails", 224, 4, 0), "hull").certificate.status == "optimal"
