"""Synthetic problems with pair terms, for tests and benchmarks: losses by the square of summed errors."""

from __future__ import annotations

import numpy as np

from bitwright.core.problem import Pairs, Problem
from tests.solvers.instances import instance


def interacting(
    n: int, k: int, seed: int, *, share: float = 1.0, strength: float = 0.3, family: str = "layers"
) -> Problem:
    """An instance whose pair terms are 2 r_ab sqrt(loss_a loss_b): cross terms of a quadratic form of the errors.

    share: part of all pairs of units that interact; r_ab is normal with standard deviation `strength` / sqrt(n).
    """
    one = instance(family, n, k, seed)
    rng = np.random.default_rng([seed, n, k, 11])
    a, b = np.triu_indices(n, 1)
    keep = rng.random(len(a)) < share
    a, b = a[keep], b[keep]
    root = np.sqrt(one.loss)
    r = rng.normal(0, strength / np.sqrt(n), len(a))
    table = 2 * r[:, None, None] * root[a][:, :, None] * root[b][:, None, :]
    e, i, j = (m.ravel() for m in np.indices(table.shape))
    pairs = Pairs(np.stack([a[e], b[e]], 1), np.stack([i, j], 1), table.ravel())
    return Problem(one.loss, one.resources, one.limits, pairs=pairs)
