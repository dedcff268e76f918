"""Synthetic fusion problems of Q-Palette's shape: seven linears a block, five fusions, latency with an overhead."""

from __future__ import annotations

import itertools

import numpy as np

from bitwright.core.problem import Problem
from solvers.covers import fusion_problem

#: q k v o u g d, and the fusions of research/01 section 2: qk kv qv qkv ug.
FUSIONS = ((0, 1), (1, 2), (0, 2), (0, 1, 2), (4, 5))
SIZES = np.array([4.0, 1.0, 1.0, 4.0, 14.0, 14.0, 14.0])


def fusing(
    blocks: int,
    k: int,
    seed: int,
    *,
    overhead: float = 3.0,
    share: float = 0.4,
    memory: float | None = None,
    fusions: tuple[tuple[int, ...], ...] = FUSIONS,
) -> Problem:
    """Latency of a bundle = overhead + time by bits; the limit lies `share` of the way up; memory likewise."""
    rng = np.random.default_rng([seed, blocks, k])
    bits = np.linspace(2, 6, k)
    size = np.tile(SIZES, blocks) * rng.uniform(0.9, 1.1, 7 * blocks)
    loss = (size * np.exp(rng.normal(0, 1, len(size))))[:, None] * 4.0**-bits * np.exp(0.1 * rng.normal(size=(1, k)))
    shapes = [(m,) for m in range(7)] + list(fusions)
    bundles = [tuple(7 * b + m for m in shape) for b, shape in itertools.product(range(blocks), shapes)]
    weight = np.array([size[list(b)].sum() for b in bundles])
    latency = np.rint(100 * (overhead + weight[:, None] * (0.5 + bits / 4))).astype(np.int64)
    stored = np.rint(1000 * weight[:, None] * bits).astype(np.int64)
    single = np.array([len(b) == 1 for b in bundles])
    low, high = latency[single].min(axis=1).sum(), latency[single].max(axis=1).sum()
    limits = {"latency_us": int(low + share * (high - low))}
    costs = {"latency_us": latency}
    if memory is not None:
        low, high = stored[single].min(axis=1).sum(), stored[single].max(axis=1).sum()
        costs, limits = {**costs, "bytes": stored}, {**limits, "bytes": int(low + memory * (high - low))}
    return fusion_problem(loss, bundles, costs, limits)
