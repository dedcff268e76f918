"""Every block of experts of a model with what went in and came out of it, while its weights are at hand.

In memory the model runs once and all blocks are known; where it does not fit, a layer is read, all data goes through
it, its block is shown, and the next layer is read. The numbers are the same up to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from sensitivity.base import ScoringTask
from sensitivity.blocks import BlockModel, open_blocks
from sensitivity.data import Data
from sensitivity.routing import Block, find_blocks, no_experts, watch, watching
from sensitivity.runner import Runner, load_runner
from sensitivity.stream_options import activation_bytes, dtype_of, streams
from sensitivity.walk import opened_walk


def expert_blocks(task: ScoringTask, data: Data, *, residual: bool = False) -> Iterator[tuple[Runner, Block]]:
    """(who can run the block and change its weights, the block), block by block. Raises Unsupported, NotFinite."""
    if not any(unit.expert is not None for unit in task.inventory.units):
        raise no_experts(task.inventory)
    if streams(task):
        task.deltas.keep_nothing()
        return _streamed(task, data, residual)
    runner = load_runner(task.source, task.inventory)
    return ((runner, block) for block in watch(runner, data, residual=residual))


def _streamed(task: ScoringTask, data: Data, residual: bool) -> Iterator[tuple[Runner, Block]]:
    model = open_blocks(task.source, task.inventory, dtype_of(task))
    rows, layers = np.arange(data.items, dtype=np.int64), len(model.blocks)
    with opened_walk(model, data, rows, None, activation_bytes(task)) as walk:
        walk.stream.begin("x")
        for layer in range(layers):
            with model.loaded(layer):
                runner = _of_layer(model, layer)
                with watching(runner, find_blocks(runner), residual=residual) as seen:
                    walk.stream.advance("x", layer, keep=False)
                for block in seen():
                    yield runner, _numbered(block, model.units_of(layer))
            task.progress("score", (layer + 1) / (layers + 1), f"layer {layer} run")


@dataclass(frozen=True)
class _Layer(Runner):
    """The model as far as it is loaded: one layer, its parameters and its units alone."""

    loaded: Mapping[str, torch.nn.Parameter] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.loaded)


def _of_layer(model: BlockModel, layer: int) -> Runner:
    some = tuple(model.inventory.units[unit] for unit in model.units_of(layer))
    places = {model.inventory.units[unit].name: model.places[unit] for unit in model.units_of(layer)}
    inventory, known = replace(model.inventory, units=some), model.parameters_of(layer)
    return _Layer(model.source, inventory, model.model, model.head, places, loaded=known)


def _numbered(block: Block, units: tuple[int, ...]) -> Block:
    """The block with the numbers that its units have in the whole model."""
    return replace(block, experts={e: tuple(units[unit] for unit in some) for e, some in block.experts.items()})
