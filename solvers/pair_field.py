"""Pair terms of a reduced problem as blocks: one k x k table for each two groups that share terms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.pair_bound import pair_blocks
from bitwright.core.problem import IntArray, Pairs
from solvers.reduce import Reduced

Floats = NDArray[np.float64]
#: Cells of all tables together (8 bytes each).
CELLS = 1 << 26


@dataclass(frozen=True, eq=False)
class Field:
    """loss (g, k), inf = forbidden; edges (e, 2) with a < b; table (e, k, k) oriented (a, b); place (g, g): edge or -1.

    near[g]: the edges at group g. Losses are those of the reduced problem, scaled.
    """

    reduced: Reduced
    loss: Floats
    edges: IntArray
    table: Floats
    place: IntArray
    near: tuple[IntArray, ...]

    @staticmethod
    def of(reduced: Reduced) -> Field:
        """Raises Unsupported where the tables would not fit in memory."""
        # The edges in the order of the checker, on the problem that the certificate is about.
        blocks, groups, k = pair_blocks(reduced.problem), reduced.groups, reduced.k
        edges = blocks.edges
        if len(edges) * k * k + groups * groups > CELLS:
            raise Unsupported(
                "too many pair terms", expected=f"at most {CELLS} cells (pairs of groups x formats squared)",
                got=f"{len(edges)} pairs of groups, {k} formats", hint="tie units, or drop small pair terms",
            )  # fmt: skip
        table = np.ldexp(blocks.dense(0, len(edges)), -reduced.exponent)
        place = np.broadcast_to(np.int64(-1), (groups, groups))
        if len(edges):
            place = place.copy()
            place[edges[:, 0], edges[:, 1]] = place[edges[:, 1], edges[:, 0]] = np.arange(len(edges))
        owner = np.concatenate([edges[:, 0], edges[:, 1]])
        order = np.argsort(owner, kind="stable")
        cut = np.searchsorted(owner[order], np.arange(1, groups))
        near = tuple(np.split(order % max(1, len(edges)), cut))
        return Field(reduced, reduced.loss, edges, table, place, near)

    def rows(self, group: int, form: int) -> tuple[IntArray, Floats]:
        """(other ends (d,), their pair losses (d, k)) of all edges at `group` when it takes `form`."""
        near = self.near[group]
        first = self.edges[near, 0] == group
        table = np.where(first[:, None], self.table[near, form, :], self.table[near, :, form])
        return np.where(first, self.edges[near, 1], self.edges[near, 0]), table

    def around(self, choice: IntArray) -> Floats:
        """(g, k): loss of each cell while all other groups stay as in `choice`."""
        total = self.loss.copy()
        a, b = self.edges.T
        each = np.arange(len(self.edges))
        np.add.at(total, a, self.table[each, :, choice[b]])
        np.add.at(total, b, self.table[each, choice[a], :])
        return total

    def value(self, choice: IntArray) -> float:
        a, b = self.edges.T
        pairs = self.table[np.arange(len(self.edges)), choice[a], choice[b]]
        return float(self.loss[np.arange(len(choice)), choice].sum() + pairs.sum())

    def moved(self, messages: Floats) -> Field:
        """The same objective with messages (e, 2, k) moved from the tables to the groups."""
        loss = self.loss.copy()
        np.add.at(loss, self.edges.reshape(-1), messages.reshape(-1, self.reduced.k))
        return replace(self, loss=loss, table=self.table - messages[:, 0, :, None] - messages[:, 1, None, :])

    def floors(self) -> Floats:
        """(e,) least allowed cell of each table."""
        allowed = np.isfinite(self.loss)
        may = allowed[self.edges[:, 0]][:, :, None] & allowed[self.edges[:, 1]][:, None, :]
        return np.asarray(np.where(may, self.table, np.inf).min(axis=(1, 2)))

    def without_pairs(self) -> Reduced:
        """The reduced problem of the groups' own losses."""
        return replace(self.reduced, loss=self.loss, pairs=Pairs())
