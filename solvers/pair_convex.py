"""The bound of dense pair terms: the tangent of a convex form below them (`core.pair_curvature`), by Frank and Wolfe.

Messages see two groups at a time: where many terms of both signs meet, each is bent to its best and the bound means
nothing. The curvature is a multiple of the blocks, within the groups, of the negative part of the pair terms' matrix:
the least that leaves no negative eigenvalue, by bisection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import VerificationFailed
from bitwright.core.pair_bound import pair_blocks
from bitwright.core.pair_curvature import pair_form, tangent, with_blocks
from solvers.base import Deadline
from solvers.hulls import build_hulls, relax
from solvers.pair_dual import multipliers_of, priced
from solvers.pair_field import Field

Floats = NDArray[np.float64]
#: Cells up to which this is tried (an eigenvalue problem of that order), and steps of the ascent.
CELLS, STEPS = 1_500, 150
#: Share of the mean curvature that every cell gets: what blocks without a full rank need.
LEAST = 1e-9
#: Part of itself to which the multiple is found.
FINE = 5e-3
#: Seconds that it takes, times the cells cubed: with less time it is left out.
SECONDS = 4e-9


@dataclass(frozen=True, eq=False)
class Convex:
    """curvature: as the certificate holds it; multipliers (r,) of the reduced problem's rows; value of the bound.

    tangent (g, k): losses with the tangent of the pair terms, of the reduced problem: its plans are near the best.
    """

    curvature: tuple[float, ...]
    multipliers: Floats
    value: float
    tangent: Floats


def convex_bound(field: Field, deadline: Deadline) -> Convex | None:
    """None where there are too many cells, no pair terms, or no time."""
    reduced = field.reduced
    groups, k = field.loss.shape
    if groups * k > CELLS or not len(field.edges) or not deadline.fits(SECONDS * (groups * k) ** 3):
        return None
    allowed = np.isfinite(field.loss)
    form = np.ldexp(pair_form(reduced.problem, allowed), -reduced.exponent)
    blocks = _blocks(form, groups, k, deadline)
    if blocks is None:
        return None
    point = _ascend(field, blocks, with_blocks(form, blocks), deadline)
    numbers = np.concatenate([np.ldexp(blocks, reduced.exponent).ravel(), point.ravel()]).tolist()
    try:
        added, constants = tangent(reduced.problem, tuple(numbers), allowed)
    except VerificationFailed:  # rounding: messages serve
        return None
    added -= pair_blocks(reduced.problem).own  # which the reduced problem's losses hold
    moved = np.where(allowed, field.loss + np.ldexp(added, -reduced.exponent), np.inf)
    multipliers = multipliers_of(field, moved, deadline)
    price, bound = priced(field, multipliers)
    value = float((moved + price).min(axis=1).sum() + np.ldexp(constants, -reduced.exponent).sum() - bound)
    return Convex(tuple(numbers), multipliers, value, moved)


def _blocks(form: Floats, groups: int, k: int, deadline: Deadline) -> Floats | None:
    """S (groups, k, k): the least multiple of the negative part's blocks that leaves no negative eigenvalue."""
    value, vector = np.linalg.eigh(form)
    below = vector[:, value < 0]
    part = (below * -value[value < 0]) @ below.T
    each = np.arange(groups)
    blocks = part.reshape(groups, k, groups, k)[each, :, each, :]
    mean = float(np.trace(part)) / len(part)
    if not mean > 0:
        return None
    blocks = blocks + LEAST * mean * np.eye(k)
    low, high = 1.0, 2.0
    while not _is_positive(with_blocks(form, high * blocks)):
        low, high = high, 2 * high
        if high > groups * k:  # the negative part is at most groups times its own blocks
            return None
    while high - low > FINE * high and not deadline.passed:
        middle = (low + high) / 2
        low, high = (low, middle) if _is_positive(with_blocks(form, middle * blocks)) else (middle, high)
    return np.asarray(high * blocks)


def _is_positive(whole: Floats) -> bool:
    try:
        np.linalg.cholesky(whole)
    except np.linalg.LinAlgError:
        return False
    return True


def _ascend(field: Field, blocks: Floats, whole: Floats, deadline: Deadline) -> Floats:
    """A point (groups, k) near the least value of the convex form over mixed choices (Frank and Wolfe 1956)."""
    allowed = np.isfinite(field.loss)
    base = np.where(allowed, field.loss, 0.0) - np.diagonal(blocks, axis1=1, axis2=2) / 2
    point = _mixed(field, field.loss, deadline)
    slope = (whole @ point.reshape(-1)).reshape(point.shape)
    for _ in range(STEPS):
        if deadline.passed:
            break
        rise = base + slope
        way = _mixed(field, np.where(allowed, rise, np.inf), deadline) - point
        bend = (whole @ way.reshape(-1)).reshape(point.shape)
        down, curved = -float((rise * way).sum()), float((bend * way).sum())
        if not down > 1e-7 * abs(float((rise * point).sum())):
            break
        step = min(1.0, down / curved) if curved > 0 else 1.0
        point, slope = point + step * way, slope + step * bend
    return point


def _mixed(field: Field, loss: Floats, deadline: Deadline) -> Floats:
    """The least choice of a linear loss, mixed where one limit splits a group; under several rows the priced least."""
    reduced, each = field.reduced, np.arange(len(loss))
    point = np.zeros(loss.shape)
    if len(reduced.rows) == 1 and reduced.limits:
        row = reduced.limits[0]
        hulls = build_hulls(loss, row.weight)
        vertex = relax(hulls, row.bound)
        if vertex is not None:
            point[each, vertex.choice] = 1.0
            if vertex.taken < len(hulls.steps):
                steps, q = hulls.steps, vertex.taken
                share = vertex.slack / float(steps.dcost[q])
                point[steps.group[q], [steps.before[q], steps.after[q]]] += (-share, share)
            return point
    price, _ = priced(field, multipliers_of(field, loss, deadline))
    point[each, (loss + price).argmin(axis=1)] = 1.0
    return point
