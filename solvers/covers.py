"""Exact covers in count rules: bundles of units, of which every member must be in exactly one that is used.

Q-Palette's fusion-aware choice (research/01 section 2) as a plain problem: the problem's units are the possible bundles
(q, k, v, qk, qv, kv, qkv, ...), one format, the absent one, means "not used", and for every member of a block two rules
say that exactly one of the bundles that hold it takes another format. Latency and memory are ordinary resources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidProblem
from bitwright.core.problem import AT_LEAST, AT_MOST, IntArray, Limit, Problem, Resource, Rule

ABSENT = "absent"


@dataclass(frozen=True, eq=False)
class Cover:
    """absent: the format that means 'not used'. holds (members, units): whether a unit (a bundle) holds a member.

    rules: (members, 2) index of each member's two rules, at least and at most.
    """

    absent: int
    holds: NDArray[np.bool_]
    rules: IntArray


def find_cover(problem: Problem) -> Cover | None:
    """The cover that the rules describe, or None when they are not exactly that."""
    if not problem.rules or problem.tie is not None or len(problem.pairs):
        return None
    present = np.sort(problem.rules[0].formats)
    if len(present) != problem.k - 1:
        return None
    members: dict[bytes, dict[int, int]] = {}
    for index, rule in enumerate(problem.rules):
        if rule.count != 1 or not np.array_equal(np.sort(rule.formats), present):
            return None
        senses = members.setdefault(np.sort(rule.units).tobytes(), {})
        if rule.sense in senses:
            return None
        senses[rule.sense] = index
    if any(len(senses) != 2 for senses in members.values()):
        return None
    holds = np.zeros((len(members), problem.n), bool)
    for member, senses in enumerate(members.values()):
        holds[member, problem.rules[senses[AT_LEAST]].units] = True
    absent = int(np.setdiff1d(np.arange(problem.k), present)[0])
    if not holds.any(axis=0).all() or not np.isfinite(problem.loss[:, absent]).all():
        return None
    pairs = [[senses[AT_LEAST], senses[AT_MOST]] for senses in members.values()]
    return Cover(absent, holds, np.array(pairs, np.int64))


def fusion_problem(
    loss: Any,
    bundles: Sequence[Sequence[int]],
    costs: Mapping[str, Any],
    limits: Mapping[str, int | float],
    *,
    unit_names: Sequence[str] | None = None,
    format_names: Sequence[str] | None = None,
) -> Problem:
    """The problem whose units are `bundles`, for any solver that takes rules; `fusion` is made for it.

    loss (members, k): of each member alone; inf forbids. bundles: members that may share one format, the members alone
    among them where they may stay alone. costs: by resource, (bundles, k) of each bundle as a whole, such as a measured
    latency of the fused operation. The last format of the problem, `absent`, is not using the bundle. A bundle is named
    by its members' names joined by "+". Raises InvalidProblem.
    """
    single = np.asarray(loss, np.float64)
    if single.ndim != 2 or not single.size:
        raise InvalidProblem("loss must be a matrix", expected="shape (members, formats)", got=str(single.shape))
    count, k = single.shape
    groups = [np.unique(np.asarray(bundle, np.int64)) for bundle in bundles]
    if not groups or any(len(g) == 0 or g[0] < 0 or g[-1] >= count for g in groups):
        raise InvalidProblem("a bundle is empty or names a member that is not there", expected=f"0 .. {count - 1}")
    missing = np.setdiff1d(np.arange(count), np.concatenate(groups))
    if len(missing):
        raise InvalidProblem("a member is in no bundle", got=f"member {missing[0]}")
    table = np.zeros((len(groups), k + 1))
    table[:, :k] = np.stack([single[g].sum(axis=0) for g in groups])
    resources = tuple(Resource(name, matrix=_with_absent(cost, len(groups), k)) for name, cost in costs.items())
    rules = []
    for member in range(count):
        holders = np.array([u for u, g in enumerate(groups) if member in g], np.int64)
        rules += [Rule(holders, np.arange(k), sense, 1) for sense in (AT_LEAST, AT_MOST)]
    names = None if unit_names is None else tuple("+".join(unit_names[m] for m in g) for g in groups)
    formats = None if format_names is None else (*format_names, ABSENT)
    found = tuple(Limit(name, value) for name, value in limits.items())
    return Problem(table, resources, found, rules=tuple(rules), unit_names=names, format_names=formats)


def _with_absent(cost: Any, bundles: int, k: int) -> NDArray[Any]:
    matrix = np.asarray(cost)
    if matrix.shape != (bundles, k):
        raise InvalidProblem(
            "a cost of bundles has the wrong shape", expected=f"({bundles}, {k})", got=str(matrix.shape)
        )
    kind = np.int64 if np.issubdtype(matrix.dtype, np.integer) else np.float64
    return np.concatenate([matrix.astype(kind), np.zeros((bundles, 1), kind)], axis=1)


def used_bundles(problem: Problem, choice: IntArray) -> dict[int, int]:
    """bundle -> format of the bundles that a choice uses. Raises InvalidProblem when the rules are no exact cover."""
    cover = find_cover(problem)
    if cover is None:
        raise InvalidProblem("the rules of this problem are no exact cover of bundles", hint="see `fusion_problem`")
    return {int(u): int(choice[u]) for u in np.flatnonzero(choice != cover.absent)}
