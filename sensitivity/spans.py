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
from collections.abc import Callable
from dataclasses import dataclass

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
Lay = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Spans:
    """length: positions of a span, 0 for whole sequences; count: spans of the longest item."""

    length: int = 0
    count: int = 1


WHOLE = Spans()


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


def laid_out(call: Call, items: int, positions: int, spans: Spans) -> tuple[torch.Tensor, Lay] | None:
    """Inputs as (items x spans, length, in), zeros where a span is short, and what lays output gradients out alike.

    positions: of the batch. None: it cannot be told which item and position an input is of.
    """
    inputs, total = call.inputs, items * spans.count
    ordered = inputs.ndim >= 3 and max(inputs.shape[1:-1]) == inputs.shape[1:-1].numel() == positions
    if inputs.ndim >= 3 and inputs.shape[0] == items and (spans.count == 1 or ordered):
        return _regular(inputs, items, spans), lambda grad: _regular(grad, items, spans)
    rows = inputs.reshape(-1, inputs.shape[-1])
    if call.tokens is not None and call.of == items * positions:
        item, position = call.tokens // positions, call.tokens % positions
        span = position // spans.length if spans.length else torch.zeros_like(position)
        lay = _scattered(item * spans.count + span, total)
        return lay(rows), lay
    if spans.count == 1:
        clear = items == 1 or (inputs.ndim == 2 and len(rows) == items)
    else:
        clear = items == 1 and len(rows) == positions
    if clear:
        return _regular(rows, items, spans), lambda grad: _regular(grad, items, spans)
    return None


def _regular(values: torch.Tensor, items: int, spans: Spans) -> torch.Tensor:
    """(items, ..., width) -> (items x spans, length, width)."""
    flat = values.reshape(items, -1, values.shape[-1])
    if spans.count == 1:
        return flat
    missing = spans.count * spans.length - flat.shape[1]
    padded = torch.nn.functional.pad(flat, (0, 0, 0, missing)) if missing else flat
    return padded.reshape(items * spans.count, spans.length, flat.shape[-1])


def _scattered(segment: torch.Tensor, segments: int) -> Lay:
    """What brings rows, each of a segment, into (segments, most rows of one, width)."""
    order = torch.argsort(segment, stable=True)
    counts = torch.bincount(segment, minlength=segments)
    most, starts = int(counts.max()), torch.cumsum(counts, 0) - counts
    ordered = segment[order]
    target = ordered * most + torch.arange(len(order), device=order.device) - starts[ordered]

    def lay(values: torch.Tensor) -> torch.Tensor:
        rows = values.reshape(len(order), -1)
        laid = rows.new_zeros(segments * most, rows.shape[-1])
        return laid.index_copy_(0, target, rows[order]).reshape(segments, most, rows.shape[-1])

    return lay
