"""Exact sums against `math.fsum`: many terms, wide ranges, halves of the last place, cancellation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitwright.core import blocks
from bitwright.core.blocks import exact_sum


def hard(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    values = rng.normal(size=size)
    if kind == "wide":
        return np.ldexp(values, rng.integers(-900, 900, size))
    if kind == "cancels":
        return np.concatenate([values, -values, [2.0**-80]])
    if kind == "halfway":  # one, half of its last place, and sometimes a little more
        return np.concatenate([[1.0, 2.0**-53], np.zeros(size), [2.0**-140 * rng.integers(-1, 2)]])
    return np.abs(values)


@pytest.mark.parametrize("kind", ["positive", "wide", "cancels", "halfway"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_are_rounded_once(kind: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 127, 129, 224, 1000, 45_000):
        for _ in range(8):
            with np.errstate(over="ignore"):
                values = hard(kind, size, rng).astype(dtype)
            values = values[np.isfinite(values)]
            assert exact_sum(values) == math.fsum(values.tolist())


def test_most_sums_are_told_without_looking_at_each_term(monkeypatch: pytest.MonkeyPatch) -> None:
    if not blocks.EXTENDED:
        assert np.finfo(np.longdouble).eps != 2.0**-63
        return
    asked: list[int] = []
    monkeypatch.setattr(blocks.math, "fsum", lambda terms: asked.append(len(terms)) or sum(terms))
    rng = np.random.default_rng(1)
    for _ in range(100):
        exact_sum(rng.random(1000))
    assert len(asked) <= 20


def test_sums_beyond_float64_are_refused_as_before() -> None:
    with pytest.raises(OverflowError):
        exact_sum(np.full(200, 1e308))
