"""`fisher` of a model that is read block by block: what becomes of the groups' losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from bitwright.core.errors import InvalidInput
from sensitivity.base import Scores, ScoringTask
from sensitivity.blocks import BlockModel, open_blocks
from sensitivity.fisher_table import Spent, finished, keeps_signed, make_moments, required
from sensitivity.passes import by_length
from sensitivity.share import Values, add_up
from sensitivity.spans import default_samples, spans_of
from sensitivity.stream_options import activation_bytes, dtype_of
from sensitivity.streaming import group_items, group_values


def directions_of(model: BlockModel, samples: int) -> int:
    """Directions an item, known without running the model."""
    config: Any = model.model.config
    task = model.inventory.task
    width = config.hidden_size if task == "embedding" else 1 if task == "causal-lm" else config.num_labels
    shape = (1, 1, width) if task == "causal-lm" else (1, width)
    return model.head.count(torch.empty(shape), samples)


def stream_scores(task: ScoringTask) -> Scores:
    """The table, a group of items after another; what is done of them is kept in the task's `partial` or shared.

    Raises Unsupported for models that cannot be read block by block, InvalidInput, NotFinite.
    """
    data = required(task)
    if task.options.get("relative_error") is not None:
        raise InvalidInput(
            "the option relative_error needs the whole model in memory", got="a model read in blocks",
            hint="leave it out, and choose --samples and the number of calibration tokens",
        )  # fmt: skip
    task.deltas.keep_nothing()
    model = open_blocks(task.source, task.inventory, dtype_of(task))
    spans = spans_of(task, model.head)
    samples = default_samples(model.head, data, spans) if task.samples is None else task.samples
    moments, order, size = make_moments(task, task.partial), by_length(data), group_items(data)
    count, directions = -(-data.items // size), directions_of(model, samples)
    keeping = keeps_signed(task, directions * spans.count)

    def compute(run: range) -> Iterator[Values]:
        for number in run:
            rows, told = order[number * size : (number + 1) * size], (number / count, (number + 1) / count)
            yield group_values(task, model, rows, samples, told, keeping, activation_bytes(task), spans)

    add_up(moments, task.share, count, size, compute)
    spent = Spent(samples, directions, spans, model.head.loss_unit, model.head.label_a_position)
    return finished(task, moments, moments.reached, spent, None, streamed=True)
