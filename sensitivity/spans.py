"""Sequences cut into spans of positions, whose scores are squared one by one.

A score summed over a whole sequence is one draw of a variable of mean zero, so its square is worth one sample: 64
sequences and one set of labels give a standard error of sqrt(2 / 64) = 18 %. Labels of a language model are drawn
position by position, and what ties the errors of two positions together, a label that both reach, fades with their
distance: sums over spans of SPAN positions are near to independent, and each is a sample from the same backward pass.
What is left out is the covariance between spans. On the language models of docs/metrics.md even spans of one position
(`fisher-token`) lose nothing; where one label hangs on every position, as on a class token, they lose up to 93 %
(research/08, 2e), so only heads with a label a position cut their sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from bitwright.core.errors import InvalidInput
from sensitivity.base import ScoringTask
from sensitivity.capture import Call
from sensitivity.data import Data
from sensitivity.heads import Head

#: Positions of a span where the option `span` says nothing; it measured well (docs/adr/0009).
SPAN = 64
#: Scores of each unit that the default number of label sets makes: they know a Gaussian cell to sqrt(2 / 256) = 9 %.
SCORES = 256


@dataclass(frozen=True)
class Spans:
    """length: positions of a span, 0 for whole sequences; count: spans of the longest item."""

    length: int = 0
    count: int = 1


WHOLE = Spans()


#: (segments, output gradients, inputs): a slice or numbers of some segments, and (of them, length, width) each.
Piece = tuple[slice | torch.Tensor, torch.Tensor, torch.Tensor]


class Layout(Protocol):
    """Inputs of a layer by segment (items x spans), and output gradients alike. length: positions of the longest."""

    @property
    def length(self) -> int: ...

    @property
    def inputs(self) -> torch.Tensor:
        """(segments, length, in), zeros where a segment is short."""
        ...

    def lay(self, grad: torch.Tensor) -> torch.Tensor:
        """(segments, length, out) of a gradient that is shaped as the layer's output is."""
        ...

    def pieces(self, grad: torch.Tensor, some: int) -> Iterator[Piece]:
        """Inputs and output gradients of `some` segments at a time, of the same length; rows beyond a segment's own
        are zero in the gradients. Segments without positions are left out."""
        ...


def spans_of(task: ScoringTask, head: Head) -> Spans:
    """How the task's items are cut. Raises InvalidInput for an option `span` that is no length."""
    length = task.options.get("span", SPAN)
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise InvalidInput(
            "the option span must be a number of positions", expected="0 (whole sequences) or more",
            got=repr(length)[:80],
        )  # fmt: skip
    if not head.label_a_position or not length or task.data is None or "input_ids" not in task.data.inputs:
        return WHOLE
    longest = int(task.data.inputs["input_ids"].shape[1])
    return WHOLE if longest <= length else Spans(length, -(-longest // length))


def default_samples(head: Head, data: Data, spans: Spans) -> int:
    """Label sets an item: SCORES of each unit where sequences are cut, and never more than the head's own default."""
    if spans.count == 1:
        return head.default_samples
    return max(1, min(head.default_samples, math.ceil(SCORES / max(1, data.items * spans.count))))


def laid_out(call: Call, items: int, positions: int, spans: Spans) -> Layout | None:
    """positions: of the batch. None: it cannot be told which item and position an input is of."""
    inputs = call.inputs
    ordered = inputs.ndim >= 3 and max(inputs.shape[1:-1]) == inputs.shape[1:-1].numel() == positions
    if inputs.ndim >= 3 and inputs.shape[0] == items and (spans.count == 1 or ordered):
        return _Regular(inputs, items, spans)
    rows = inputs.reshape(-1, inputs.shape[-1])
    if call.tokens is not None and call.of == items * positions:
        item, position = call.tokens // positions, call.tokens % positions
        span = position // spans.length if spans.length else torch.zeros_like(position)
        return _Scattered(rows, item * spans.count + span, items * spans.count)
    if spans.count == 1:
        clear = items == 1 or (inputs.ndim == 2 and len(rows) == items)
    else:
        clear = items == 1 and len(rows) == positions
    return _Regular(rows, items, spans) if clear else None


@dataclass(frozen=True, eq=False)
class _Regular:
    """Positions that come item by item."""

    values: torch.Tensor
    items: int
    spans: Spans

    @cached_property
    def inputs(self) -> torch.Tensor:
        return self.lay(self.values)

    @property
    def length(self) -> int:
        return self.inputs.shape[1]

    def lay(self, grad: torch.Tensor) -> torch.Tensor:
        flat = grad.reshape(self.items, -1, grad.shape[-1])
        if self.spans.count == 1:
            return flat
        missing = self.spans.count * self.spans.length - flat.shape[1]
        padded = torch.nn.functional.pad(flat, (0, 0, 0, missing)) if missing else flat
        return padded.reshape(self.items * self.spans.count, self.spans.length, flat.shape[-1])

    def pieces(self, grad: torch.Tensor, some: int) -> Iterator[Piece]:
        laid = self.lay(grad)
        for start in range(0, len(laid), some):
            part = slice(start, start + some)
            yield part, laid[part], self.inputs[part]


class _Scattered:
    """Rows that each belong to a segment: the tokens of an expert."""

    def __init__(self, rows: torch.Tensor, segment: torch.Tensor, segments: int) -> None:
        self._rows = rows
        counts = torch.bincount(segment, minlength=segments)
        self.length, starts = int(counts.max()), torch.cumsum(counts, 0) - counts
        order = torch.argsort(segment, stable=True)
        target = segment[order] * self.length + torch.arange(len(order), device=order.device) - starts[segment[order]]
        index = torch.full((segments * self.length,), len(rows), device=order.device)
        self._index = index.index_copy_(0, target, order).reshape(segments, self.length)
        lengths, ranked = torch.sort(counts, descending=True, stable=True)
        self._lengths = lengths[lengths > 0].tolist()
        self._ranked = ranked[: len(self._lengths)]

    @cached_property
    def inputs(self) -> torch.Tensor:
        return self.lay(self._rows)

    def lay(self, grad: torch.Tensor) -> torch.Tensor:
        return _taken(_padded(grad), self._index)

    def pieces(self, grad: torch.Tensor, some: int) -> Iterator[Piece]:
        padded = _padded(grad)
        for start in range(0, len(self._lengths), some):
            segments = self._ranked[start : start + some]
            rows = self._index[segments, : self._lengths[start]]
            yield segments, _taken(padded, rows), _taken(self._rows, rows.clamp(max=len(self._rows) - 1))


def _padded(values: torch.Tensor) -> torch.Tensor:
    """Rows, and one of zeros behind them."""
    rows = values.reshape(-1, values.shape[-1])
    return torch.cat([rows, rows.new_zeros(1, rows.shape[-1])])


def _taken(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """rows[index], of (rows, width) and (segments, length)."""
    return rows.index_select(0, index.flatten()).reshape(*index.shape, rows.shape[-1])
