"""Plans to measure: random ones, ones near an optimum, uniform ones, and the hand rule 'first and last layers high'."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.table import SensitivityTable
from solvers import solve

WIDTHS = (2, 3, 4, 5, 6, 8)
FORMATS = tuple(f"int{width}-g64" for width in WIDTHS)
BUDGETS = (2.5, 3.0, 3.5, 4.0)
RANDOM_BUDGETS = (2.5, 3.0, 3.5)
#: Share of the units that plans near an optimum change.
NEAR_SHARE = 0.15
Choice = NDArray[np.int64]
Costs = NDArray[np.int64]


def bytes_at(bits: float, table: SensitivityTable) -> int:
    """Bytes of the uniform plan of that width, interpolated between whole widths."""
    return int(np.interp(bits, WIDTHS, table.cost_bytes().sum(axis=0)))


def optimum(table: SensitivityTable, bits: float) -> Choice:
    return np.asarray(solve(table.problem(bytes_at(bits, table))).choice)


def _towards(choice: Choice, limit: int, cost: Costs, rng: np.random.Generator) -> Choice:
    """Single random steps until the plan's bytes are within 1 % below the limit."""
    choice, rows = choice.copy(), np.arange(len(cost))
    for _ in range(100_000):
        total = int(cost[rows, choice].sum())
        if 0.99 * limit <= total <= limit:
            break
        unit = rng.integers(len(cost))
        choice[unit] = min(max(choice[unit] + (-1 if total > limit else 1), 0), cost.shape[1] - 1)
    return choice


def random_choice(limit: int, cost: Costs, rng: np.random.Generator) -> Choice:
    """A random mixed plan within 1 % of the bytes: random widths, then single random steps towards the limit."""
    return _towards(rng.integers(0, cost.shape[1], len(cost)), limit, cost, rng)


def near_choice(best: Choice, limit: int, cost: Costs, rng: np.random.Generator) -> Choice:
    """A plan near `best`: NEAR_SHARE of the units moved by one width, then steps towards the limit."""
    moved = rng.random(len(best)) < NEAR_SHARE
    choice = np.clip(best + moved * rng.choice((-1, 1), len(best)), 0, cost.shape[1] - 1)
    return _towards(choice.astype(np.int64), limit, cost, rng)


def ends_high(table: SensitivityTable, bits: float) -> Choice:
    """The first and last block (and the output head) as high as the bytes allow, the rest at the width below."""
    limit, cost, rows = bytes_at(bits, table), table.cost_bytes(), np.arange(len(table.inventory.units))
    layers = [unit.layer for unit in table.inventory.units]
    known = [layer for layer in layers if layer is not None]
    ends = np.array([layer is None or layer in (min(known), max(known)) for layer in layers])
    best: Choice = np.zeros(len(rows), np.int64)
    for low in range(len(WIDTHS)):
        for high in range(low, len(WIDTHS)):
            choice = np.where(ends, high, low)
            if int(cost[rows, choice].sum()) <= limit and (low, high) >= (best.min(), best.max()):
                best = choice.astype(np.int64)
    return best
