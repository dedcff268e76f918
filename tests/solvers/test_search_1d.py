"""The search over balanced plans: exact counts, the exhaustive optimum, and no more calls than allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import InvalidProblem, InvalidSetting, NotFinite
from solvers.search_1d import balanced, search

saliences = st.lists(st.floats(0, 1e6), min_size=1, max_size=30)


@given(salience=saliences, width=st.integers(2, 7), data=st.data())
def test_equal_counts_and_exact_mean(salience: list[float], width: int, data: st.DataObject) -> None:
    moved = data.draw(st.integers(0, len(salience) // 2))
    bits = balanced(salience, width, moved)
    assert (bits == width - 1).sum() == (bits == width + 1).sum() == moved
    assert bits.sum() == width * len(salience)
    low, high = np.array(salience)[bits < width], np.array(salience)[bits > width]
    assert not moved or low.max() <= high.min()


@given(salience=saliences, seed=st.integers(0, 99))
def test_every_plan_is_scored_and_the_best_is_taken(salience: list[float], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 5, len(salience) // 2 + 1)
    found = search(salience, lambda bits: float(noise[(bits > 3).sum()]), width=3)
    assert len(found.scores) == len(noise)
    assert found.moved == int(noise.argmin())  # the fewest moved among equals
    assert found.score == noise.min()
    assert (found.bits == balanced(salience, 3, found.moved)).all()


@given(salience=saliences, calls=st.integers(2, 20), seed=st.integers(0, 99))
def test_calls_are_bounded_and_uniform_is_included(salience: list[float], calls: int, seed: int) -> None:
    noise = np.random.default_rng(seed).random(len(salience) // 2 + 1)
    seen: list[int] = []

    def score(bits: np.ndarray) -> float:
        seen.append(int((bits > 4).sum()))
        return float(noise[seen[-1]])

    found = search(salience, score, width=4, calls=calls)
    assert len(seen) == len(set(seen)) == min(calls, len(noise))
    assert 0 in seen
    assert found.score <= noise[0]


@pytest.mark.parametrize("target", [0, 3, 17, 41, 50])
def test_few_calls_find_the_valley_of_a_convex_score(target: int) -> None:
    found = search(np.arange(100), lambda bits: abs(int((bits > 3).sum()) - target) ** 1.5, width=3, calls=16)
    assert abs(found.moved - target) <= 1
    assert len(found.scores) <= 16


def test_real_losses_gain_with_skew_and_keep_uniform_without() -> None:
    """With losses c 4^-b, moving bits pays only where the salience is uneven enough."""

    def loss(c: np.ndarray) -> float:
        return search(c, lambda bits: float(c @ 4.0 ** -bits.astype(float)), width=2).moved

    assert loss(np.ones(16)) == 0
    assert loss(np.exp(np.linspace(0, 8, 16))) > 0


def test_bad_input_is_typed() -> None:
    with pytest.raises(InvalidProblem):
        search([], lambda bits: 0.0, width=3)
    with pytest.raises(InvalidProblem):
        search([1.0, np.nan], lambda bits: 0.0, width=3)
    with pytest.raises(InvalidSetting):
        search([1.0], lambda bits: 0.0, width=1)
    with pytest.raises(InvalidSetting):
        search([1.0], lambda bits: 0.0, width=3, calls=1)
    with pytest.raises(NotFinite, match="finite"):
        search([1.0, 2.0], lambda bits: float("nan"), width=3)
