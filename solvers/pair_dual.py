"""The bound of pair terms: messages and multipliers that maximise it.

Small problems: the linear program over the local polytope (a variable for each cell and pair of cells), whose duals are
the messages and multipliers of the best such bound. Larger ones: block ascent, the max-product linear program of
Globerson and Jaakkola (2007) over sets of disjoint edges at once, in turn with the multipliers of limits and rules.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.problem import AT_LEAST, IntArray, Pairs
from solvers import highs
from solvers.base import Deadline
from solvers.dual import Rows, maximise
from solvers.hulls import build_hulls, relax
from solvers.linear_model import build
from solvers.pair_field import Field

Floats = NDArray[np.float64]
#: Columns up to which the linear program is solved; rounds of ascent, and sweeps over all edges in each.
COLUMNS, ROUNDS, SWEEPS = 30_000, 6, 8
#: What the sets of edges, and the values and multipliers after a round, take over what one value takes.
DISJOINT, VALUED = 2.0, 4.0


@dataclass(frozen=True, eq=False)
class Bound:
    """messages (e, 2, k) and multipliers (r,) of the integer rows of the reduced problem, and the value they give."""

    messages: Floats
    multipliers: Floats
    value: float


def bound(field: Field, deadline: Deadline, seed: int) -> Bound:
    """The better of the linear program (where it is small enough and ends in time) and the ascent."""
    found = None
    if field.loss.size + field.table.size <= COLUMNS:
        found = _linear_program(field, deadline, seed)
    return found or _ascend(field, deadline)


def plain(field: Field, deadline: Deadline) -> Bound:
    """Without messages: each term by its negative part."""
    return Bound(np.zeros((0, 2, field.reduced.k)), multipliers_of(field, field.loss, deadline), -np.inf)


def value_of(field: Field, messages: Floats, multipliers: Floats) -> float:
    moved = field.moved(messages)
    price, constant = priced(field, multipliers)
    return float((moved.loss + price).min(axis=1).sum() + moved.floors().sum() - constant)


def priced(field: Field, multipliers: Floats) -> tuple[Floats, float]:
    """(multipliers . weights (g, k), multipliers . bounds) over limits and rules, at least counted negative."""
    price, constant = np.zeros(field.loss.shape), 0.0
    for row, rate in zip(field.reduced.rows, multipliers.tolist(), strict=True):
        sign = -1.0 if row.sense == AT_LEAST else 1.0
        price += sign * rate * row.weight
        constant += sign * rate * row.bound
    return price, constant


def _linear_program(field: Field, deadline: Deadline, seed: int) -> Bound | None:
    reduced, k, edges = field.reduced, field.reduced.k, len(field.edges)
    program = build(field.without_pairs(), reduced.rows)
    # `build` counts a group's losses from its least one; `cells` numbers its columns.
    cells, model = len(program.group), program.model
    column = np.full(field.loss.shape, -1, np.int64)
    column[program.group, program.format] = np.arange(cells)
    allowed = column >= 0
    may = allowed[field.edges[:, 0]][:, :, None] & allowed[field.edges[:, 1]][:, None, :]
    e, i, j = np.nonzero(may)
    pair = cells + np.arange(len(e))
    # Row (edge, side, format): the pair columns with that format on that side, less the group's own column.
    rows = np.concatenate([(2 * e) * k + i, (2 * e + 1) * k + j])
    own_edge, own_side, own_form = np.meshgrid(np.arange(edges), np.arange(2), np.arange(k), indexing="ij")
    own = column[field.edges[own_edge, own_side], own_form].ravel()
    own_row = np.arange(edges * 2 * k)[own >= 0]
    row = np.concatenate([rows, own_row])
    index = np.concatenate([pair, pair, own[own >= 0]])
    value = np.concatenate([np.ones(2 * len(e)), -np.ones(len(own_row))])
    order = np.argsort(row, kind="stable")
    start = np.concatenate([model.start, model.start[-1] + np.cumsum(np.bincount(row, minlength=edges * 2 * k))])
    zeros = np.zeros(edges * 2 * k)
    cost = np.concatenate([model.cost[:cells], field.table[may]])
    whole = highs.Model(
        cost, np.zeros(len(cost), bool), start, np.concatenate([model.index, index[order]]),
        np.concatenate([model.value, value[order]]), np.concatenate([model.low, zeros]),
        np.concatenate([model.high, zeros]),
    )  # fmt: skip
    mean = float(np.abs(cost).mean())
    scale = 2.0 ** -np.frexp(mean)[1] if mean > 0 else 1.0
    answer = highs.run_timed(whole, integral=False, seconds=0.4 * deadline.left, seed=seed, cost_scale=scale)
    if answer.status != highs.OPTIMAL:
        return None
    duals = answer.duals / scale
    first = reduced.groups
    multipliers = np.zeros(len(reduced.rows))
    for r, limit in enumerate(reduced.rows):
        dual = duals[first + r] / program.scale[r]
        multipliers[r] = max(0.0, dual if limit.sense == AT_LEAST else -dual)
    messages = duals[first + len(reduced.rows) :].reshape(edges, 2, k).copy()
    messages[~allowed[field.edges]] = 0.0
    return Bound(messages, multipliers, value_of(field, messages, multipliers))


def _ascend(field: Field, deadline: Deadline) -> Bound:
    messages = np.zeros((len(field.edges), 2, field.reduced.k))
    multipliers = multipliers_of(field, field.loss, deadline)
    begin = time.monotonic()
    best = Bound(messages, multipliers, value_of(field, messages, multipliers))
    valuing = time.monotonic() - begin
    if not (DISJOINT + VALUED) * valuing < deadline.left:
        return best
    sets = _disjoint(field.edges)
    for _ in range(ROUNDS if len(sets) else 0):
        if not VALUED * valuing < deadline.left:
            break
        moved, part = field.moved(best.messages), deadline.within(deadline.left - VALUED * valuing)
        messages = best.messages + _sweep(moved, priced(field, best.multipliers)[0], sets, part)
        multipliers = multipliers_of(field, field.moved(messages).loss, deadline)
        options = [Bound(messages, m, value_of(field, messages, m)) for m in (best.multipliers, multipliers)]
        better = max(options, key=lambda option: option.value)
        gained, best = better.value - best.value, better if better.value > best.value else best
        if deadline.passed or gained <= 1e-6 * abs(best.value):
            break
    return best


def multipliers_of(field: Field, loss: Floats, deadline: Deadline) -> Floats:
    """The best multipliers for losses (g, k) without pair terms: exact for one limit, else by smoothed Newton steps."""
    reduced = field.reduced
    if not reduced.rows:
        return np.zeros(0)
    if len(reduced.rows) == 1 and reduced.limits:
        vertex = relax(build_hulls(loss, reduced.limits[0].weight), reduced.limits[0].bound)
        return np.array([vertex.slope if vertex else 0.0])
    rows = Rows.of(reduced)
    return maximise(replace(reduced, loss=loss, pairs=Pairs()), rows, deadline).multipliers / rows.scale


def _sweep(field: Field, price: Floats, sets: list[IntArray], deadline: Deadline) -> Floats:
    """Messages to add: each edge takes both groups' losses in and gives half of the least sums back to each."""
    allowed = np.isfinite(field.loss)
    # Forbidden cells get a wall that is finite, so that differences stay numbers.
    wall = 4.0 * float(np.abs(field.loss[allowed]).max() + np.abs(field.table).max(initial=0.0) + np.abs(price).max())
    loss, table = np.where(allowed, field.loss + price, wall), field.table.copy()
    messages = np.zeros((len(field.edges), 2, field.reduced.k))
    for _ in range(SWEEPS):
        for edges in sets:
            if deadline.passed:  # a sweep that is broken off gives messages too
                return messages
            a, b = field.edges[edges].T
            whole = table[edges] + loss[a][:, :, None] + loss[b][:, None, :]
            for side, group, other in ((0, a, 2), (1, b, 1)):
                change = 0.5 * whole.min(axis=other) - loss[group]
                change[~allowed[group]] = 0.0
                messages[edges, side] += change
                loss[group] += change
            table[edges] = field.table[edges] - messages[edges, 0][:, :, None] - messages[edges, 1][:, None, :]
    return messages


def _disjoint(edges: IntArray) -> list[IntArray]:
    """Edges in sets without a common group: each edge takes the first set that is free at both its ends."""
    free: dict[int, int] = {}
    sets: list[list[int]] = []
    for e, (a, b) in enumerate(edges.tolist()):
        used = free.get(a, 0) | free.get(b, 0)
        number = (~used & (used + 1)).bit_length() - 1
        if number == len(sets):
            sets.append([])
        sets[number].append(e)
        free[a], free[b] = free.get(a, 0) | 1 << number, free.get(b, 0) | 1 << number
    return [np.array(part, np.int64) for part in sets]
