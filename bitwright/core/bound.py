"""The Lagrangian bound L(m) of `certificate`, recomputed from the problem alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bitwright.core.blocks import CACHED, exact_sums, release, row_blocks
from bitwright.core.errors import VerificationFailed
from bitwright.core.pair_bound import shifted
from bitwright.core.pair_curvature import tangent
from bitwright.core.problem import AT_LEAST, Limit, Problem
from bitwright.core.problem_check import LARGEST

NOTHING = np.zeros(0)
#: Multipliers up to here overflow with no cost that int64 holds.
LARGE = 1e200


def lagrangian(
    problem: Problem,
    multipliers: Mapping[str, float],
    messages: tuple[float, ...] | None = None,
    curvature: tuple[float, ...] | None = None,
) -> tuple[float, float]:
    """(L(m), scale): the bound in float64, and the summed magnitudes that its rounding is relative to.

    What every choice pays of a limit is taken off both sides first, where it is much (`Problem.centred`).
    """
    m = _clean_multipliers(problem, multipliers)
    problem = problem.centred
    constant, simple = [], problem.tie is None and not problem.rules
    for limit in problem.limits:
        constant.append(-m.get(limit.name, 0.0) * float(limit.value))
        simple = simple and limit.units is None
    for index, rule in enumerate(problem.rules):
        sign = -1.0 if rule.sense == AT_LEAST else 1.0
        constant.append(-sign * m.get(f"rule:{index}", 0.0) * rule.count)
    rest = problem.pairs.loss[problem.pairs.loss < 0] if len(problem.pairs) else NOTHING
    signed = problem.extremes.least < 0
    if simple and messages is None and curvature is None:
        parts = [_least(problem, m, rows) for rows in row_blocks(problem.n)]
    else:
        signed = True
        value = _by_group(problem, m)
        if curvature is not None or messages is not None:
            allowed = np.isfinite(value)
            added, rest = (
                tangent(problem, curvature, allowed) if curvature else shifted(problem, messages or (), allowed)
            )
            value = value + added
        parts = [value.min(axis=1)]
    if len(rest):
        parts.append(rest)
        signed = True
    if problem.groups <= 1_000_000:
        total, scale = exact_sums(parts[0] if len(parts) == 1 else np.concatenate(parts), signed=signed)
        return math.fsum((total, *constant)), math.fsum((scale, *map(abs, constant)))
    parts.append(np.array(constant))
    sums = [(part.sum(dtype=np.longdouble), np.abs(part).sum(dtype=np.longdouble)) for part in parts]
    return float(sum(value for value, _ in sums)), float(sum(size for _, size in sums))


def _least(problem: Problem, m: Mapping[str, float], rows: slice) -> NDArray[np.float64]:
    """min over formats of (loss + m.cost) of some rows, a stretch of them at a time: for limits over all units."""
    limits = [(problem.resource(limit.resource), m[limit.name]) for limit in problem.limits if m.get(limit.name)]
    table, step = problem.loss[rows], max(1, CACHED // problem.k)
    best = np.empty(len(table))
    for begin in range(0, len(table), step):
        part = slice(begin, begin + step)
        value = table[part].T.astype(np.float64, order="C")
        at = slice(rows.start + begin, rows.start + begin + value.shape[1])
        for resource, price in limits:
            if resource.matrix is not None:
                value += np.multiply(resource.matrix[at].T, price, order="C")
                continue
            assert resource.size is not None
            assert resource.rate is not None
            priced = resource.rate * price
            if resource.sizes.least == resource.sizes.most:  # every row pays the same: no table of costs is made
                value += (priced * resource.sizes.most)[:, None]
            else:
                value += np.multiply.outer(priced, resource.size[at].astype(np.float64))
        np.minimum.reduce(value, out=best[part])
    release(table)
    return best


def _by_group(problem: Problem, m: Mapping[str, float]) -> NDArray[np.float64]:
    """loss + m.cost of every tie group and format, with rules and limits over some units."""
    value = problem.loss.astype(np.float64)
    for limit in problem.limits:
        rate = m.get(limit.name, 0.0)
        if rate == 0.0:
            continue
        term = problem.resource(limit.resource).costs().astype(np.float64) * rate
        if limit.units is None:
            value = value + term
        else:
            value[limit.units] += term[limit.units]
    for index, rule in enumerate(problem.rules):
        rate = m.get(f"rule:{index}", 0.0)
        if rate != 0.0:
            value[np.ix_(rule.units, rule.formats)] += (-1.0 if rule.sense == AT_LEAST else 1.0) * rate
    if problem.tie is not None:
        summed = np.zeros((problem.groups, problem.k))
        np.add.at(summed, problem.group_index, value)
        value = summed
    return value


def _clean_multipliers(problem: Problem, multipliers: Mapping[str, float]) -> dict[str, float]:
    known = {limit.name for limit in problem.limits}
    if problem.rules:
        known.update(f"rule:{i}" for i in range(len(problem.rules)))
    clean: dict[str, float] = {}
    for name, value in multipliers.items():
        if name not in known:
            raise VerificationFailed(
                "a multiplier names no limit or rule", expected=", ".join(sorted(known)), got=str(name)[:80]
            )
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise VerificationFailed(f"the multiplier of {name} must be finite and not negative", got=repr(value)[:40])
        clean[name] = float(value)
    for limit in problem.limits:
        if overflows(problem, limit, clean.get(limit.name, 0.0)):
            raise VerificationFailed(
                f"the multiplier of {limit.name} is too large: priced totals overflow float64",
                got=repr(clean[limit.name]),
            )
    return clean


def overflows(problem: Problem, limit: Limit, price: float) -> bool:
    """Whether totals priced with this multiplier leave float64: a bound of inf - inf is none."""
    if price <= LARGE:
        return False
    resource = problem.resource(limit.resource)
    if resource.matrix is not None:
        top = float(problem.n) * float(resource.matrix.max())
    else:
        assert resource.rate is not None
        top = float(resource.sizes.total) * float(resource.rate.max())
    return price > LARGEST / max(top, abs(float(limit.value)), 1.0)
