"""Costs that are multiples of one number but for small rests (`rests.hpp`)."""

from __future__ import annotations

import numpy as np
import pytest

from solvers import native
from tests.solvers.cost_tables import limit_at, losses, proved

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs the native library")

RATE = np.array([33, 42, 55, 68, 72, 88, 105, 136])


def cost_with_rests(size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One format costs 1 to 4 bytes more than the one before it, which saves less."""
    cost = size[:, None] * RATE // 128
    cost[:, 4] = cost[:, 3] + rng.integers(1, 5, len(size))
    return cost


EXPERTS = 7168 * np.array([2048, 1536, 512, 576, 18432])
LAYERS = 4096 * np.array([4096, 1024, 14336])


OPEN = [
    (EXPERTS, 224, "near", 0, 0.5),
    (LAYERS, 500, "equal", 0, 0.8),
    (LAYERS, 2000, "two", 1, 0.8),
    (LAYERS, 2000, "equal", 0, 0.8),  # a limit of whole steps: rests have no room but that of a step less
    (EXPERTS, 1000, "equal", 0, 0.5),  # rests of more than half a step together
]


@pytest.mark.parametrize(("shapes", "n", "slopes", "seed", "share"), OPEN)
def test_costs_a_few_bytes_off_a_grid_are_proved(
    shapes: np.ndarray, n: int, slopes: str, seed: int, share: float
) -> None:
    """Regression: plans were stated with gaps of 2.4e-5, 1.7e-4, 3.7e-5, 3.7e-5 and 1e-5 after a second."""
    rng = np.random.default_rng(seed)
    size = rng.choice(shapes, n)
    cost = cost_with_rests(size, rng)
    proved(losses(slopes, size, RATE, rng), cost, limit_at(cost, share))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_plans_are_those_of_a_table_of_all_totals(seed: int, whole: bool) -> None:
    """whole: a limit of whole steps."""
    rng = np.random.default_rng(seed)
    size, rate = rng.choice([3, 4, 9], 60), np.array([3, 5, 6, 9])
    cost = 640 * size[:, None] * (rate - 2)
    cost[:, 2] = cost[:, 1] + rng.integers(1, 5, len(size))
    loss = losses(("equal", "two", "near", "three")[seed], size, rate, rng)
    limit = limit_at(cost, rng.uniform(0.2, 0.8))
    limit -= limit % 640 if whole else 0
    extra = cost - cost.min(axis=1, keepdims=True)
    room = limit - int(cost.min(axis=1).sum())
    best = np.zeros(room + 1)
    for steps, lost in zip(extra.tolist(), loss.tolist(), strict=True):
        found = np.full(room + 1, np.inf)
        for step, value in zip(steps, lost, strict=True):
            np.minimum(found[step:], best[: room + 1 - step] + value, out=found[step:])
        best = found
    assert proved(loss, cost, limit) == pytest.approx(best[room], rel=1e-11)
