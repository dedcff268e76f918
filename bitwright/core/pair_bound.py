"""Pair terms in the lower bound: messages move a pair's loss to its two tie groups, and any messages give a bound.

For two tie groups a < b that share pair terms let V(i, j) be the sum of the losses of those terms. With any numbers
d_a(i), d_b(j),   V(x_a, x_b) >= d_a(x_a) + d_b(x_b) + min over i, j of (V(i, j) - d_a(i) - d_b(j)),
so d is added to the groups' own losses and the minimum to the bound (the dual of the local polytope: Wainwright and
Jordan 2008, section 8.4; Sontag, Globerson and Jaakkola 2011). Nothing has to be checked of d but that it is finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import VerificationFailed
from bitwright.core.problem import IntArray, Problem

Floats = NDArray[np.float64]
#: Cells of V held at a time.
BLOCK = 1 << 22


@dataclass(frozen=True, eq=False)
class PairBlocks:
    """edges (e, 2): tie groups a < b that share terms, in lexicographic order. own (groups, k): terms inside one group.

    cell, loss: the other terms, by rising edge; cell = (edge * k + i) * k + j with i the format of a and j that of b.
    """

    edges: IntArray
    own: Floats
    cell: IntArray
    loss: Floats

    def dense(self, begin: int, end: int) -> Floats:
        """V of the edges begin .. end-1: (end - begin, k, k)."""
        k = self.own.shape[1]
        low, high = np.searchsorted(self.cell, [begin * k * k, end * k * k])
        cell = self.cell[low:high] - begin * k * k
        flat = np.bincount(cell, self.loss[low:high], (end - begin) * k * k)
        return flat.astype(np.float64).reshape(-1, k, k)


def pair_blocks(problem: Problem) -> PairBlocks:
    """The pair terms of a problem, gathered by tie groups; terms of one group on two formats never happen and go."""
    pairs, k = problem.pairs, problem.k
    own = np.zeros((problem.groups, k))
    group = problem.group_index[pairs.unit] if len(pairs) else pairs.unit
    inside = group[:, 0] == group[:, 1]
    same = inside & (pairs.format[:, 0] == pairs.format[:, 1])
    np.add.at(own, (group[same, 0], pairs.format[same, 0]), pairs.loss[same])
    group, form, loss = group[~inside], pairs.format[~inside], pairs.loss[~inside]
    turned = group[:, 0] > group[:, 1]
    group[turned], form[turned] = group[turned][:, ::-1], form[turned][:, ::-1]
    # One number a pair of groups: rows are sorted at a tenth of the speed.
    key, index = np.unique(group[:, 0] * problem.groups + group[:, 1], return_inverse=True)
    edges = np.stack(np.divmod(key, max(1, problem.groups)), axis=1)
    cell = (index.reshape(-1) * k + form[:, 0]) * k + form[:, 1]
    order = np.argsort(cell, kind="stable")
    return PairBlocks(edges.astype(np.int64), own, cell[order], loss[order])


def shifted(problem: Problem, messages: tuple[float, ...], allowed: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """(what the messages add to the losses of the groups (groups, k), the least rest of each edge (e,)).

    messages: (e, 2, k) in a row, edge by edge. allowed (groups, k). Raises VerificationFailed for a wrong length.
    """
    blocks, k = pair_blocks(problem), problem.k
    count = len(blocks.edges)
    if len(messages) != count * 2 * k:
        raise VerificationFailed(
            "the certificate's messages do not fit the pair terms",
            expected=f"{count} pairs of groups x 2 x {k} numbers", got=f"{len(messages)} numbers",
        )  # fmt: skip
    message = np.array(messages, np.float64).reshape(count, 2, k)
    if not np.isfinite(message).all():
        raise VerificationFailed("the certificate's messages must be finite")
    added, rest = blocks.own.copy(), np.zeros(count)
    np.add.at(added, blocks.edges.reshape(-1), message.reshape(-1, k))
    step = max(1, BLOCK // (k * k))
    for begin in range(0, count, step):
        part = slice(begin, min(count, begin + step))
        left = blocks.dense(part.start, part.stop) - message[part, 0, :, None] - message[part, 1, None, :]
        a, b = blocks.edges[part].T
        may = allowed[a][:, :, None] & allowed[b][:, None, :]
        rest[part] = np.where(may, left, np.inf).min(axis=(1, 2))
    return added, rest


__all__ = ["PairBlocks", "pair_blocks", "shifted"]
