"""Pair terms in the lower bound by curvature: a convex quadratic form below them, and its tangent.

Over 0/1 vectors y with one 1 in the formats of each tie group the pair terms are y.Qy / 2, where Q has no entries
within a group. For any symmetric S with blocks within groups only, y.Sy = sum of S_a(x_a, x_a): S may be added and its
diagonal taken back (quadratic convex reformulation: Billionnet, Elloumi and Plateau 2009). Where M = Q + S has no
negative eigenvalue, y.My / 2 >= p.My - p.Mp / 2 for every point p, so

    sum of pair terms >= sum over groups of ((Mp)_a(x_a) - S_a(x_a, x_a) / 2) - p.Mp / 2.

M is checked by a Cholesky factorization; what rounding may hide there is taken off the bound.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import VerificationFailed
from bitwright.core.pair_bound import pair_blocks
from bitwright.core.problem import Problem

Floats = NDArray[np.float64]
#: Cells (tie groups x formats) up to which a certificate may hold a curvature: M has their square.
CELLS = 4096
#: Added to M's diagonal before it is factorized, as a share of its trace.
LIFT = 2.0**-48


def pair_form(problem: Problem, allowed: NDArray[np.bool_]) -> Floats:
    """Q, (groups x formats)^2, without the terms of forbidden cells, which never happen. allowed (groups, k)."""
    blocks, (groups, k) = pair_blocks(problem), allowed.shape
    form = np.zeros((groups, k, groups, k))
    a, b = blocks.edges.T
    table = blocks.dense(0, len(blocks.edges))
    form[a, :, b, :] = table
    form[b, :, a, :] = table.transpose(0, 2, 1)
    flat, may = form.reshape(groups * k, groups * k), allowed.reshape(-1)
    flat[~may] = 0.0
    flat[:, ~may] = 0.0
    return flat


def with_blocks(form: Floats, blocks: Floats) -> Floats:
    """M: the form with `blocks` (groups, k, k) added within the groups."""
    groups, k, _ = blocks.shape
    whole, each = form.reshape(groups, k, groups, k).copy(), np.arange(groups)
    whole[each, :, each, :] += blocks
    return whole.reshape(groups * k, groups * k)


def tangent(problem: Problem, curvature: tuple[float, ...], allowed: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """(what is added to the losses of the groups (groups, k), the constants of the bound (2,)).

    curvature: S as (groups, k, k) numbers and then p as (groups, k), in a row. allowed (groups, k). Raises
    VerificationFailed for a wrong length or size, numbers that are not finite, and an M with a negative eigenvalue.
    """
    groups, k = allowed.shape
    if len(curvature) != groups * k * (k + 1) or groups * k > CELLS:
        raise VerificationFailed(
            "the certificate's curvature does not fit the problem",
            expected=f"{groups} tie groups x {k} formats x {k + 1} numbers, for at most {CELLS} cells",
            got=f"{len(curvature)} numbers",
        )
    numbers = np.array(curvature, np.float64)
    if not np.isfinite(numbers).all():
        raise VerificationFailed("the certificate's curvature must be finite")
    blocks, point = numbers[: groups * k * k].reshape(groups, k, k), numbers[groups * k * k :].reshape(groups, k)
    blocks = (blocks + blocks.transpose(0, 2, 1)) / 2
    whole, own = with_blocks(pair_form(problem, allowed), blocks), np.diagonal(blocks, axis1=1, axis2=2)
    slope = (whole @ point.reshape(-1)).reshape(groups, k)
    # |y - p|^2 is at most this, whatever the choice y.
    far = float(((1.0 + np.linalg.norm(point, axis=1)) ** 2).sum())
    value = pair_blocks(problem).own + slope - own / 2
    return value, np.array([-float((point * slope).sum()) / 2, -_negative(whole) / 2 * far])


def _negative(whole: Floats) -> float:
    """How far below 0 the least eigenvalue may lie, once the factorization of the lifted form has gone through.

    It bears the eigenvalue up by (n + 1) 2^-53 of the trace at most (Rump 2006, Verification of positive definiteness).
    """
    trace = float(np.trace(whole))
    lift = LIFT * max(trace, 0.0)
    try:
        np.linalg.cholesky(whole + lift * np.eye(len(whole)))
    except np.linalg.LinAlgError as error:
        raise VerificationFailed("the certificate's curvature leaves a negative eigenvalue") from error
    return lift + 4 * (len(whole) + 1) * 2.0**-53 * trace


__all__ = ["CELLS", "pair_form", "tangent", "with_blocks"]
