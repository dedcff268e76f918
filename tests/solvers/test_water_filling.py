"""Reverse water-filling against a hand-made example, its optimality conditions and enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import Infeasible, InvalidProblem
from solvers.water_filling import fill, gain, round_bits, round_levels

GOLDEN = np.array([1.0, 4.0, 16.0, 64.0])
ONES = np.ones(4)


@st.composite
def instances(draw: st.DrawFn, *, largest: int = 8, equal: bool = False) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, largest))
    c = draw(st.lists(st.floats(1e-6, 1e6), min_size=n, max_size=n))
    s = [1] * n if equal else draw(st.lists(st.integers(1, 1000), min_size=n, max_size=n))
    return np.array(c), np.array(s, np.float64)


def test_the_worked_example_of_the_research_notes() -> None:
    water = fill(GOLDEN, ONES, 8, lo=-10)
    assert water.bits.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert (GOLDEN * 4.0**-water.bits).tolist() == [0.5] * 4
    assert gain(GOLDEN) == pytest.approx(2.0 / 5.3125)
    bits = round_bits(GOLDEN, ONES, fill(GOLDEN, ONES, 8).bits, 8)
    assert bits.sum() == 8
    assert float(GOLDEN @ 4.0**-bits) == 2.5


def test_another_base_equalises_that_loss_and_levels_follow_it() -> None:
    """BAQ's code: levels = (L / GM(L) 2^(th R))^(1 / th) with th = 1.95 (research/01 section 1)."""
    c, th = np.exp(np.random.default_rng(3).normal(0, 1.2, 64)), 1.95
    bits = fill(c, np.ones(64), 4 * 64, -50.0, base=2**th).bits
    assert c * 2 ** (-th * bits) == pytest.approx(np.full(64, np.exp(np.log(c).mean()) * 2 ** (-th * 4)), rel=1e-9)
    levels = (c / np.exp(np.log(c).mean()) * 2 ** (th * 4)) ** (1 / th)
    assert np.exp2(bits) == pytest.approx(levels, rel=1e-9)
    whole = round_levels(c, np.ones(64), bits, 4 * 64, base=2**th)
    assert np.log2(whole).sum() <= 4 * 64 * (1 + 1e-9)
    assert (np.abs(whole - levels) <= 1 + 0.02 * levels).all()
    with pytest.raises(InvalidProblem):
        fill(c, np.ones(64), 4 * 64, base=1.0)


@given(given_=instances(), mean=st.floats(0.1, 12))
def test_equal_loss_per_weight_and_the_predicted_gain_without_clipping(given_, mean: float) -> None:
    c, s = given_
    water = fill(c, s, mean * s.sum(), lo=-100)
    per_weight = c * 4.0**-water.bits / s
    assert per_weight.max() / per_weight.min() - 1 < 1e-9
    assert float(s @ water.bits) == pytest.approx(mean * s.sum(), rel=1e-9)
    optimal, uniform = float(c @ 4.0**-water.bits), float(c.sum() * 4.0**-mean)
    assert gain(c, s) == pytest.approx(optimal / uniform, rel=1e-9)
    assert gain(c, s) <= 1 + 1e-12


@given(given_=instances(), lo=st.floats(0, 3), width=st.floats(0, 6), share=st.floats(0, 1))
def test_clipped_bits_meet_the_conditions_of_optimality(given_, lo: float, width: float, share: float) -> None:
    """Stationary inside, no gain outwards at either bound, budget used up (Karush, Kuhn, Tucker)."""
    c, s = given_
    total = float(s.sum()) * (lo + share * width)
    water = fill(c, s, total, lo, lo + width)
    assert ((water.bits >= lo) & (water.bits <= lo + width)).all()
    assert float(s @ water.bits) == pytest.approx(total, rel=1e-9, abs=1e-9)
    if not np.isfinite(water.level):
        return
    ideal = 0.5 * np.log2(c / s) + water.level
    inside = (water.bits > lo) & (water.bits < lo + width)
    assert np.allclose(water.bits[inside], ideal[inside], atol=1e-9)
    assert (ideal[water.bits == lo] <= lo + 1e-9).all()
    assert (ideal[water.bits == lo + width] >= lo + width - 1e-9).all()


@given(given_=instances(largest=5, equal=True), total=st.integers(0, 12))
def test_whole_bits_are_optimal_for_equal_sizes(given_, total: int) -> None:
    c, s = given_
    bits = round_bits(c, s, fill(c, s, total, 0, 4).bits, total, 4)
    assert bits.sum() <= total
    best = min(
        float(c @ 4.0 ** -np.array(picks, np.float64))
        for picks in itertools.product(range(5), repeat=len(c))
        if sum(picks) <= total
    )
    assert float(c @ 4.0 ** -bits.astype(float)) == pytest.approx(best, rel=1e-12)


@given(given_=instances(), mean=st.floats(0.5, 6))
def test_roundings_keep_the_budget_and_the_bound(given_, mean: float) -> None:
    c, s = given_
    total = mean * float(s.sum())
    water = fill(c, s, total, 0, 6)
    floor = float(c @ 4.0**-water.bits)
    bits, levels = round_bits(c, s, water.bits, total, 6), round_levels(c, s, water.bits, total, 64)
    assert float(s @ bits) <= total * (1 + 1e-9)
    assert float(s @ np.log2(levels)) <= total * (1 + 1e-9)
    assert float(c @ 4.0 ** -bits.astype(float)) >= floor * (1 - 1e-9)
    assert float(c @ levels.astype(float) ** -2) >= floor * (1 - 1e-9)


@given(given_=instances(largest=6), mean=st.floats(0.0, 6.0), most=st.sampled_from([1, 5, 64, 100]))
def test_whole_bits_are_levels_so_levels_are_never_worse(given_, mean: float, most: int) -> None:
    """Regression: one weight a unit, 5 units, a few bits: the levels lost up to 31% more than whole bits."""
    c, s = given_
    total, top = mean * float(s.sum()), np.floor(np.log2(most))
    water = fill(c, s, total, 0, np.log2(most))
    bits, levels = round_bits(c, s, water.bits, total, top), round_levels(c, s, water.bits, total, most)
    assert levels.min() >= 1
    assert levels.max() <= most
    assert float(s @ np.log2(levels)) <= total * (1 + 1e-9)
    assert float(c @ levels.astype(float) ** -2) <= float(c @ 4.0 ** -bits.astype(float)) * (1 + 1e-12)


@pytest.mark.parametrize("mean", [2, 3, 4])
def test_levels_come_closer_than_bits_to_the_continuous_optimum(mean: int) -> None:
    """Mean rate within 2% of the asked one, and less loss than whole bits (research/01 section 1d)."""
    rng = np.random.default_rng(mean)
    c, s = np.exp(rng.normal(0, 1.5, 256)), np.ones(256)
    water = fill(c, s, mean * 256)
    bits, levels = round_bits(c, s, water.bits, mean * 256), round_levels(c, s, water.bits, mean * 256)
    assert np.log2(levels).mean() == pytest.approx(mean, rel=0.02)
    floor, fine, whole = c @ 4.0**-water.bits, c @ levels.astype(float) ** -2, c @ 4.0 ** -bits.astype(float)
    assert floor <= fine < whole < c.sum() * 4.0**-mean


def test_equal_units_get_equal_bits_and_units_without_loss_none() -> None:
    assert fill(np.full(5, 0.3), np.ones(5), 15).bits.tolist() == [3.0] * 5
    assert gain(np.full(5, 0.3)) == pytest.approx(1.0)
    assert fill([0.0, 1.0], [1.0, 1.0], 6, 1, 8).bits.tolist() == [1.0, 5.0]
    assert fill([0.0, 1.0], [1.0, 1.0], 60, 1, 8).bits.tolist() == [1.0, 8.0]
    assert fill([0.0, 0.0], [1.0, 1.0], 6).bits.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("c", "s"), [([], []), ([1.0], [1.0, 2.0]), ([-1.0], [1.0]), ([np.nan], [1.0]), ([1.0], [0.0]), ([1.0], [np.inf])]
)
def test_senseless_arrays_are_refused(c: list[float], s: list[float]) -> None:
    with pytest.raises(InvalidProblem):
        fill(c, s, 4)


def test_senseless_bounds_and_budgets_are_refused() -> None:
    with pytest.raises(InvalidProblem):
        fill([1.0], [1.0], 4, lo=3, hi=2)
    with pytest.raises(InvalidProblem):
        fill([1.0], [1.0], float("nan"))
    with pytest.raises(Infeasible) as caught:
        fill([1.0, 1.0], [2.0, 3.0], 4, lo=1)
    assert caught.value.extra["smallest_limit"] == 5.0
