"""Segment borders and bits against enumeration of every segmentation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import InvalidProblem, InvalidSetting, OutOfResources, UnknownName
from solvers.segments import OBJECTIVES, Segmentation, segment


def enumerate_errors(spread: list[float], budget: int, widths: list[int], base: float, overhead: int) -> dict:
    """Least error by number of segments, blocks of 8 dimensions."""
    n, best = len(spread), {}
    for cuts in itertools.product([False, True], repeat=n - 1):
        borders = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), n]
        runs = list(itertools.pairwise(borders))
        for bits in itertools.product([0, *widths], repeat=len(runs)):
            if 0 in bits[:-1]:
                continue
            spent = sum(8 * (b - a) * w + overhead for (a, b), w in zip(runs, bits, strict=True))
            if spent <= budget:
                error = sum(sum(spread[a:b]) * base**-w for (a, b), w in zip(runs, bits, strict=True))
                best[len(runs)] = min(error, best.get(len(runs), np.inf))
    return best


def recount(found: Segmentation, spread: list[float], base: float, block: int, overhead: int) -> tuple[float, int]:
    error = sum(sum(spread[s.start : s.stop]) * base**-s.bits for s in found.segments)
    return error, sum(block * (s.stop - s.start) * s.bits + overhead for s in found.segments)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(
    spread=st.lists(st.integers(0, 100).map(float), min_size=1, max_size=5),
    room=st.integers(0, 200),
    overhead=st.sampled_from([0, 4, 8, 12]),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
)
def test_agrees_with_enumeration(
    objective: str, spread: list[float], room: int, overhead: int, widths: list[int]
) -> None:
    base, budget = OBJECTIVES[objective], overhead + room
    found = segment(spread, budget, block=8, overhead=overhead, widths=widths, objective=objective)
    best = enumerate_errors(spread, budget, widths, base, overhead)
    assert found.errors == pytest.approx(best, rel=1e-9, abs=1e-12)
    error, spent = recount(found, spread, base, 8, overhead)
    assert error == pytest.approx(found.error, rel=1e-9, abs=1e-12)
    assert spent == found.spent <= budget
    least = min(found.errors.values())
    assert found.error <= 1.01 * least
    assert all(value > 1.01 * least for n, value in found.errors.items() if n < len(found.segments))
    assert [s.start for s in found.segments[1:]] == [s.stop for s in found.segments[:-1]]
    assert found.segments[-1].stop == len(spread)


def test_a_flat_spectrum_gives_one_segment() -> None:
    found = segment(np.ones(16), 4 * 1024 + 64)
    assert [(s.start, s.stop, s.bits) for s in found.segments] == [(0, 16, 4)]


def test_a_steep_spectrum_is_cut_and_beats_uniform_bits() -> None:
    spread = (1.0 / np.arange(1, 1025) ** 2).reshape(16, 64).sum(axis=1)
    found = segment(spread, 2 * 1024 + 64)
    assert len(found.segments) > 1
    bits = [s.bits for s in found.segments]
    assert bits == sorted(bits, reverse=True)
    assert found.spent <= 2 * 1024 + 64
    assert found.error < 0.5 * spread.sum() * 2.0**-2


def test_the_objective_changes_the_plan() -> None:
    spread = (1.0 / np.arange(1, 513) ** 1.0).reshape(8, 64).sum(axis=1)
    plans = {name: segment(spread, 4 * 512 + 64, objective=name, tolerance=0).segments for name in OBJECTIVES}
    assert plans["inner-product"] != plans["reconstruction"]


def test_at_most_so_many_segments() -> None:
    spread = 4.0 ** -np.arange(8)
    assert len(segment(spread, 8 * 64 * 3, most=2, tolerance=0).segments) <= 2


def test_bad_input_is_typed() -> None:
    for spread in ([], [-1.0], [np.nan], [[1.0]]):
        with pytest.raises(InvalidProblem):
            segment(spread, 1000)
    with pytest.raises(UnknownName, match="objective"):
        segment([1.0], 1000, objective="mse")
    for wrong in ({"block": 0}, {"overhead": -1}, {"widths": []}, {"widths": [0]}, {"most": 0}, {"tolerance": -1.0}):
        with pytest.raises(InvalidSetting):
            segment([1.0], 1000, **wrong)
    with pytest.raises(InvalidSetting, match="empty"):
        segment([1.0], 63)
    with pytest.raises(OutOfResources):
        segment(np.ones(400), 10**9, block=63)


def test_errors_that_differ_by_their_rounding_are_equal() -> None:
    """Regression: three segments at one number of bits were taken for one segment, whose sum was rounded otherwise."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = segment(rng.random(5), 5 * 8 * 3, block=8, overhead=0, widths=[3], tolerance=0.0)
        assert len(found.segments) == 1
