"""Cases by numbers of units: they bound every plan whatever their numbers, and `hull` states its gap by them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from bitwright.cli import render
from bitwright.core import cases as by_cases
from bitwright.core.certificate import BY_CASES, certify, total_loss, verify, violations
from bitwright.core.claim import Certificate
from bitwright.core.errors import VerificationFailed
from bitwright.core.problem import Limit, Problem, Resource
from solvers import native, solve
from tests.solvers.cost_tables import problem as tabled
from tests.solvers.test_counts import KINDS, SLOPES, levelled, shapes

#: Four units, 0 or 10 of 25: two may take 10, in part two and a half. Either at most two do, or more, which cost 30.
FOUR = Problem(np.tile([1.0, 0.0], (4, 1)), (Resource("bits", matrix=np.tile([0, 10], (4, 1))),), (Limit("bits", 25),))
TWO = np.array([1, 1, 0, 0])
CLOSED = (1, 10, 1, 2, -1, 0, 0, 1, -1, 0.4, 0, -4)


def random_problem(rng: np.random.Generator) -> Problem:
    n, k = int(rng.integers(1, 6)), int(rng.integers(2, 4))
    cost = np.sort(rng.integers(0, 4, (n, k)) + 10 * rng.integers(0, 4, k), axis=1)
    loss = np.sort(np.round(rng.random((n, k)) * 8, 1), axis=1)[:, ::-1]
    loss[rng.random((n, k)) < 0.05] = np.inf
    loss[:, 0] = np.where(np.isinf(loss[:, 0]), 9.0, loss[:, 0])
    low, high = int(cost[:, 0].sum()), int(cost.max(axis=1).sum())
    return tabled(np.ascontiguousarray(loss), cost, int(rng.integers(low, high + 1)))


def random_cases(given: Problem, rng: np.random.Generator) -> tuple[float, ...]:
    """A tree of random splits, moduli and multipliers, some of them huge."""
    first = sorted({int(c) for c in rng.integers(1, 40, rng.integers(0, 4))})
    levels = len(first) + 1
    numbers: list[float] = [levels - 1, *first]
    open_ = 1
    while open_:
        if len(numbers) < 60 and rng.random() < 0.4:
            if rng.random() < 0.5:
                numbers += [int(rng.integers(0, levels)), int(rng.integers(-1, given.n + 1))]
            else:
                numbers += [-2, int(rng.integers(0, given.n)), int(rng.integers(-1, given.k + 1))]
            open_ += 1
            continue
        size = float(rng.choice([0.0, 0.1, 1.0, 1e12, 1e30], p=[0.2, 0.3, 0.3, 0.1, 0.1]))
        numbers += [
            *((-1,) if rng.random() < 0.5 else (-3, int(rng.choice([1, 2, 3, 5, 7, 10, 20, 1000])))),
            float(rng.random()) * float(rng.choice([0.0, 0.3, size])),
            *(size * rng.normal(size=levels)).tolist(),
        ]
        open_ -= 1
    return tuple(map(float, numbers))


def plans(given: Problem) -> list[np.ndarray]:
    every = (np.array(choice) for choice in itertools.product(range(given.k), repeat=given.n))
    return [choice for choice in every if not violations(given, choice)]


def exactly(given: Problem, cases: tuple[float, ...], price: float, gap: float, loss: float) -> Fraction | float:
    """The least bound of a case in fractions, by recursion; of what is above the loss, the loss."""
    cost, limit = given.resources[0].costs(), Fraction(given.limits[0].value)
    levels = int(cases[0]) + 1
    first = cases[1:levels]
    cells = []
    for losses, costs in zip(given.loss.tolist(), cost.tolist(), strict=True):
        row = list(enumerate(zip(losses, costs, strict=True)))
        may = [(Fraction(x), c, sum(c >= f for f in first), j) for j, (x, c) in row if x < np.inf]
        least = min(x + c * Fraction(price) for x, c, *_ in may)
        cells.append([cell for cell in may if cell[0] + cell[1] * Fraction(price) - least <= Fraction(gap)])
    low = [sum(all(cell[2] == level for cell in row) for row in cells) for level in range(levels)]
    high = [sum(any(cell[2] == level for cell in row) for row in cells) for level in range(levels)]

    def case(at: int, low: list[int], high: list[int], cells: list) -> tuple[int, Fraction | float]:
        if cases[at] == -2:
            unit, last = int(cases[at + 1]), int(cases[at + 2])
            sides = [[cell for cell in cells[unit] if (cell[3] <= last) == way] for way in (True, False)]
            middle, one = case(at + 3, low, high, [*cells[:unit], sides[0], *cells[unit + 1 :]])
            end, other = case(middle, low, high, [*cells[:unit], sides[1], *cells[unit + 1 :]])
            return end, min(one, other)
        if cases[at] >= 0:
            level, most = int(cases[at]), int(cases[at + 1])
            fewer, more = list(high), list(low)
            fewer[level], more[level] = min(high[level], most), max(low[level], most + 1)
            middle, one = case(at + 2, low, fewer, cells)
            end, other = case(middle, more, high, cells)
            return end, min(one, other)
        modulus = int(cases[at + 1]) if cases[at] == -3 else 0
        at += cases[at] == -3
        end, (own, *of_level) = at + 2 + levels, map(Fraction, cases[at + 1 : at + 2 + levels])
        if any(a > b for a, b in zip(low, high, strict=True)) or not all(cells):
            return end, np.inf
        value = sum(min(x + c * own + of_level[one] for x, c, one, _ in row) for row in cells) - own * limit
        if modulus:
            value = min(
                sum(x + c * own + of_level[one] for x, c, one, _ in plan)
                - own * limit
                + own * ((int(limit) - sum(c for _, c, *_ in plan)) % modulus)
                for plan in itertools.product(*cells)
            )
        value -= sum(m * (b if m > 0 else a) for m, a, b in zip(of_level, low, high, strict=True))
        return end, min(value, Fraction(loss)) if modulus else value

    return case(levels, low, high, cells)[1]


def test_they_bound_every_plan_whatever_their_numbers() -> None:
    """By all plans, and by fractions; and no huge number makes a plan seem the best one."""
    rng, raised = np.random.default_rng(7), 0
    for _ in range(1500):
        given = random_problem(rng)
        fitting = plans(given)
        if not fitting:
            continue
        best = min(total_loss(given, choice) for choice in fitting)
        choice, cases = fitting[int(rng.integers(len(fitting)))], random_cases(given, rng)
        price = {"bits": float(rng.random())}
        plain, made = certify(given, choice, price), certify(given, choice, price, cases=cases)
        assert (made.lower_bound, made.gap) == (plain.lower_bound, plain.gap)
        assert made.case_bound is None or plain.lower_bound < made.case_bound <= best + 1e-10
        assert made.status != "optimal" or total_loss(given, choice) <= best + 1e-10
        gap = total_loss(given, choice) - plain.lower_bound + 1e-11
        found = by_cases._least(given, cases, price["bits"], gap, total_loss(given, choice))
        size = max(1.0, max(map(abs, cases)))
        exact = exactly(given, cases, price["bits"], gap, total_loss(given, choice))
        assert found == exact or abs(Fraction(found) - exact) <= Fraction(size * 1e-12)
        raised += made.cases is not None
        assert verify(given, choice, Certificate.from_json(made.to_json())).ok
    assert raised > 100


def test_numbers_of_units_close_what_one_multiplier_leaves_open() -> None:
    plain, made = certify(FOUR, TWO, {"bits": 0.1}), certify(FOUR, TWO, {"bits": 0.1}, cases=CLOSED)
    assert (plain.status, plain.lower_bound) == ("bounded", 1.5)
    assert (made.status, made.lower_bound, made.gap) == ("optimal", 1.5, 0.5)
    assert made.proof == BY_CASES
    assert made.case_bound == pytest.approx(2.0, abs=1e-12)
    shown = render.certificate(replace(made, status="bounded", proof=None, case_bound=1.875).to_json())
    assert "gap 0.5 (25% of the loss) and 0.125 by its cases (6.25%)" in shown
    assert verify(FOUR, TWO, made).ok
    assert not verify(FOUR, TWO, replace(made, cases=None)).ok
    assert not verify(FOUR, TWO, replace(made, cases=None, case_bound=None)).ok
    assert not verify(FOUR, TWO, replace(made, case_bound=1.9)).ok
    weaker = tuple(0.0 if number == -4 else number for number in CLOSED)
    assert not verify(FOUR, TWO, replace(made, cases=weaker)).ok
    assert not verify(FOUR, TWO, replace(made, cases=weaker, case_bound=None)).ok


@pytest.mark.parametrize("bound", [-1e300, 1.6, 2.0, 1e300])
def test_a_bound_by_cases_that_are_not_there_is_refused(bound: float) -> None:
    """Regression: without cases any number was close enough to the bound that there was none of."""
    plain = certify(FOUR, TWO, {"bits": 0.1})
    assert verify(FOUR, TWO, plain).ok
    assert not verify(FOUR, TWO, replace(plain, case_bound=bound)).ok


@pytest.mark.parametrize(
    "numbers",
    [
        (),
        (1,),
        (-1,),
        (0.5, 10, -1, 0, 0),
        (1, 10),
        (2, 10, 10, -1, 0, 0, 0, 0),
        (1, 10, -1, 0, 0),
        (1, 10, -1, -0.1, 0, 0),
        (1, 10, -1, 1.7e308, 0, 0),
        (1, 10, -1, 0, 1e300, 0),
        (1, 10, 2, 1, -1, 0, 0, 0, -1, 0, 0, 0),
        (1, 10, 1, 1.5, -1, 0, 0, 0, -1, 0, 0, 0),
        (1, 10, 1, 1, -1, 0, 0, 0),
        (1, 10, -1, 0, 0, 0, 0),
        (200, *range(200), -1, *[0] * 202),
        (0, -2, 4, 0, -1, 0, 0, -1, 0, 0),
        (0, -2, -1, 0, -1, 0, 0, -1, 0, 0),
        (0, -2, 0.5, 0, -1, 0, 0, -1, 0, 0),
        (0, -2, 0, 0, -1, 0, 0),
        (0, -4, 1, 0, 0),
        (0, -3, 0, 0, 0),
        (0, -3, -3, 0, 0),
        (0, -3, 2.5, 0, 0),
        (0, -3, 2**54, 0, 0),
        (0, -3, 7, -1, 0),
        (0, -3, 7, 0),
        (0, -3, 7, 1.7e308, 0),
        (0, -3, 10**7 + 1, 0.1, 0),
        (1, 10, *[0, 0] * 5000),
    ],
)
def test_numbers_that_are_no_cases_are_refused(numbers: tuple[float, ...]) -> None:
    with pytest.raises(VerificationFailed):
        certify(FOUR, TWO, {"bits": 0.1}, cases=tuple(map(float, numbers)))


def test_a_rest_of_the_limit_that_no_plan_uses_closes_what_one_multiplier_leaves_open() -> None:
    """Totals are tens: of 25 at least 5 are left, which cost half of the loss that one unit has."""
    plain, cases = certify(FOUR, TWO, {"bits": 0.1}), (0.0, -3.0, 10.0, 0.1, 0.0)
    made = certify(FOUR, TWO, {"bits": 0.1}, cases=cases)
    assert (made.status, made.lower_bound, made.proof) == ("optimal", plain.lower_bound, BY_CASES)
    assert made.case_bound == pytest.approx(2.0, abs=1e-12)
    assert verify(FOUR, TWO, made).ok
    assert not verify(FOUR, TWO, replace(made, cases=(0.0, -3.0, 7.0, 0.1, 0.0))).ok
    assert not verify(FOUR, TWO, replace(made, cases=(0.0, -1.0, 0.1, 0.0))).ok


def test_the_format_of_a_unit_closes_what_one_multiplier_leaves_open() -> None:
    """One unit of 30 beside three of 10, of 35: without it 10 are lost, with it 3; one multiplier says 2.5."""
    cost = np.array([[0, 30], [0, 10], [0, 10], [0, 10]])
    given = tabled(np.array([[10.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), cost, 35)
    choice = np.array([1, 0, 0, 0])
    cases = (0.0, -2.0, 0.0, 0.0, -1.0, 0.0, 0.0, -3.0, 10.0, 0.1, 0.0)
    made = certify(given, choice, {"bits": 0.1}, cases=cases)
    assert (made.status, made.proof) == ("optimal", BY_CASES)
    assert certify(given, choice, {"bits": 0.1}).lower_bound == pytest.approx(2.5)
    assert verify(given, choice, made).ok
    for at, other in ((2, 1.0), (3, 1.0), (8, 7.0), (9, 0.02)):
        assert not verify(given, choice, replace(made, cases=(*cases[:at], other, *cases[at + 1 :]))).ok


def test_cases_are_of_one_limit_over_all_units() -> None:
    tied = replace(FOUR, tie=np.array([0, 0, 1, 1]))
    some = replace(FOUR, limits=(Limit("bits", 25, units=np.array([0, 1, 2])),))
    for given in (tied, some):
        with pytest.raises(VerificationFailed, match="do not fit"):
            certify(given, TWO, {"bits": 0.1}, cases=CLOSED)


@pytest.mark.skipif(native.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("compact", [False, True])
def test_hull_states_the_gap_to_the_best_numbers_of_units(compact: bool) -> None:
    """Regression: the plan was within 5e-7 of all others, as the search had found, and the stated gap was 2.5e-4."""
    seed, n, k = 0, 120, 8
    loss, cost, limit = levelled("rows", "equal", n, k, 1, 0.3, seed)
    given = tabled(loss, cost, limit)
    if compact:
        rows, _ = shapes("rows", n, np.random.default_rng([seed, n, k, 1, KINDS.index("rows"), SLOPES.index("equal")]))
        assert (cost % rows[:, None] == 0).all()
        given = Problem(loss, (Resource("bits", size=rows, rate=cost[0] // rows[0]),), (Limit("bits", limit),))
    solution = solve(given, "hull", time_limit=60)  # it takes 2 s where nothing else runs
    certificate = solution.certificate
    assert verify(given, solution.choice, Certificate.from_json(certificate.to_json())).ok
    assert certificate.status == "optimal" or certificate.relative_gap < 1e-6
    plain = certify(given, solution.choice, certificate.multipliers)
    assert plain.gap is not None
    assert solution.loss is not None
    assert certificate.gap == plain.gap
    assert certificate.case_bound is None or plain.gap > 100 * (solution.loss - certificate.case_bound)
