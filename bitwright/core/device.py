"""Weights and KV cache in one problem: the cache's parts as units, their formats as columns of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import Problem, Resource


class CacheFormat(Protocol):
    """A format of a part of the cache, with what it costs: `bitwright.core.plan.CacheChoice` is one."""

    @property
    def part(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def loss(self) -> float: ...


@dataclass(frozen=True)
class Joint:
    """The problem of weights and cache. column: (part, format) to the column of that format."""

    problem: Problem
    column: dict[tuple[str, str], int]

    def choice(self, weights: NDArray[np.int64], cache: Sequence[CacheFormat]) -> NDArray[np.int64]:
        """A choice of the weights and one format for each part, in the order of the parts. Raises KeyError."""
        return np.array([*weights.tolist(), *(self.column[one.part, one.format] for one in cache)], np.int64)


def join(problem: Problem, menu: Sequence[CacheFormat]) -> Joint:
    """The weights' problem with one more unit for each part of the cache, and one more format for each of theirs.

    A unit may take formats of its own kind alone: every other cell is infinite.
    """
    n, k = problem.loss.shape
    parts = list(dict.fromkeys(one.part for one in menu))
    loss = np.full((n + len(parts), k + len(menu)), np.inf)
    cost = np.zeros(loss.shape, np.int64)
    loss[:n, :k], cost[:n, :k] = problem.loss, problem.resource("bytes").costs()
    column = {}
    for at, one in enumerate(menu, start=k):
        row = n + parts.index(one.part)
        loss[row, at], cost[row, at] = one.loss, one.bytes
        column[one.part, one.format] = at
    tie = None
    if problem.tie is not None:
        tie = np.concatenate([problem.tie, int(problem.tie.max(initial=0)) + 1 + np.arange(len(parts))])
    names = (*(problem.format_names or ()), *(f"{one.part}:{one.format}" for one in menu))
    units = (*(problem.unit_names or ()), *(f"kv_cache.{part}" for part in parts))
    joined = Problem(
        loss=loss, resources=(Resource("bytes", matrix=cost),), limits=problem.limits, tie=tie, rules=problem.rules,
        unit_names=units, format_names=names,
    )  # fmt: skip
    return Joint(joined, column)
