"""Synthetic allocation problems of the families of research/05 section 1 (own generator), for tests and benchmarks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import IntArray, Limit, Problem, compact_bits

FAMILIES = ("layers", "experts", "groups", "hetero", "oddsize", "correlated", "similar", "tails")
#: Spread of the sizes' logarithm: in `tails` a few units outweigh all others.
SPREAD = {"tails": 3.0}
#: q, k, v, o, gate, up, down of an 8B model.
LAYERS = 4096 * np.array([4096, 1024, 1024, 4096, 14336, 14336, 14336])
#: Sixteenths of a bit, as in the k-quants.
RATES = {
    2: [48, 72],
    3: [33, 55, 88],
    4: [32, 48, 64, 128],
    5: [33, 42, 55, 88, 136],
    6: [33, 42, 55, 68, 88, 136],
    7: [33, 42, 55, 68, 72, 88, 136],
    8: [33, 42, 55, 68, 72, 88, 105, 136],
    12: [17, 25, 33, 42, 55, 60, 68, 72, 88, 105, 120, 136],
    16: [17, 25, 33, 42, 50, 55, 60, 68, 72, 80, 88, 96, 105, 112, 120, 136],
}


def sizes(family: str, n: int, rng: np.random.Generator) -> np.ndarray:
    if family == "layers":
        return LAYERS[np.arange(n) % len(LAYERS)]
    if family in ("experts", "groups"):
        return np.full(n, 44_000_000 if family == "experts" else 128)
    spread = np.exp(rng.normal(6 if family == "hetero" else 15, SPREAD.get(family, 1.2), n))
    return np.maximum(1, np.rint(spread)).astype(np.int64) * (16384 if family == "hetero" else 1)


def instance(family: str, n: int, k: int, seed: int, *, bits: float = 3.5, dtype: type = np.float64) -> Problem:
    """loss = importance * 4^-bits with noise, a tenth of rows spoiled in one format; `correlated`, `similar`: slopes
    equal but for 1e-7 of a loss, 1e-3 of a slope. Of uneven sizes only those of `hetero` have a common divisor."""
    rng = np.random.default_rng([seed, n, k, FAMILIES.index(family)])
    rate, size = np.array(RATES[k]), sizes(family, n, rng)
    if family == "correlated":
        loss = size[:, None] * (20 - rate / 16) * (1 + 1e-7 * rng.normal(size=(n, k)))
    elif family == "similar":
        save = np.diff(rate) / 16 * (1 + 1e-3 * rng.normal(size=(n, k - 1)))
        loss = size[:, None] * (
            20 - rate[-1] / 16 + np.pad(np.cumsum(save[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
        )
    else:
        importance = size * np.exp(rng.normal(0, 1.5, n))
        loss = importance[:, None] * 4.0 ** -(rate / 16) * np.exp(0.15 * rng.normal(size=(n, k)))
        bad = np.flatnonzero(rng.random(n) < 0.1)
        loss[bad, rng.integers(1, max(2, k - 1), len(bad))] *= rng.uniform(1.5, 4.0, len(bad))
    limit = int(bits * 16 * int(size.sum()))
    return Problem((loss / loss.sum()).astype(dtype), (compact_bits(size, rate, 16),), (Limit("bits", limit),))


class Compact(NamedTuple):
    """A float32 table of one limit: losses, sizes, rates, and the limit."""

    loss: NDArray[Any]
    size: IntArray
    rate: IntArray
    limit: int


def compact(family: str, n: int, k: int, seed: int, share: float) -> Compact:
    """share: of the way from the cheapest plan to the dearest."""
    given = instance(family, n, k, seed, dtype=np.float32)
    size, rate = given.resources[0].size, given.resources[0].rate
    assert size is not None
    assert rate is not None
    return Compact(given.loss, size, rate, int(size.sum() * (rate.min() + share * (rate.max() - rate.min()))))
