"""Measuring variants of a model that does not fit in memory: all of them together, one block at a time.

A block is read once; the original's batches go through it, then each variant's, after the variant's weights were put in
the original's place. Held at once: one block, one unit of a variant, a batch's activations; what goes from block to
block waits in memory up to a limit and on disk beyond. GROUP_TOKENS go through the whole model at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.inventory import Inventory, Unit
from bitwright.models import ModelSource
from sensitivity.base import Progress
from sensitivity.blocks import OUTSIDE, BlockModel, open_blocks
from sensitivity.data import Data
from sensitivity.deltas import unit_weight
from sensitivity.quality import Comparison
from sensitivity.shelf import Shelf
from sensitivity.stream import ACTIVATION_BYTES, Stream, cut
from sensitivity.units_map import Changed, put

#: What a unit is in a variant; None: the original's.
Variant = Callable[[Unit], Changed | None]
#: Tokens (items of image models) that go through the whole model at a time.
GROUP_TOKENS = 16_384
ORIGINAL = "original"


def stream_measure(
    source: ModelSource,
    inventory: Inventory,
    variants: Mapping[str, Variant],
    data: Data,
    order: NDArray[np.int64],
    comparisons: Mapping[str, Comparison],
    save: Callable[[], None],
    progress: Progress,
    *,
    activation_bytes: int = ACTIVATION_BYTES,
    alone: Mapping[str, int] | None = None,
) -> None:
    """Adds every item's outputs, in this order, to the comparisons; those that all of them hold already are left out.

    alone: variant -> the number of the only unit that it changes; it costs nothing before that unit's block.
    Raises Unsupported for models that cannot be read block by block, NotFinite.
    """
    model = open_blocks(source, inventory)
    where = {unit: block for block, units in model.units.items() for unit in units}
    starts = {name: where[unit] for name, unit in (alone or {}).items()}
    size = max(1, round(GROUP_TOKENS * data.items / max(1, data.tokens)))
    done = min((comparison.items for comparison in comparisons.values()), default=len(order))
    for start in range(done, len(order), size):
        cuts = cut(model, data, order[start : start + size], activation_bytes)
        batches = [data.take(rows).trimmed() for rows in cuts]
        with tempfile.TemporaryDirectory(prefix="bitwright-") as folder, torch.inference_mode(False), torch.no_grad():
            stream = Stream(model, batches, Shelf(activation_bytes // 2, Path(folder)))
            for block in _through(stream, variants, starts):
                share = start / len(order) + size / len(order) * (block + 1) / len(model.blocks)
                progress("measure", min(1.0, share), f"block {block} of {len(model.blocks)}")
            _compare(stream, variants, starts, comparisons, activation_bytes)
        save()


def _through(stream: Stream, variants: Mapping[str, Variant], starts: Mapping[str, int]) -> Iterator[int]:
    """The original and every variant, from its first block to what comes out of the last; the blocks that are done."""
    stream.begin(ORIGINAL)
    for block in range(len(stream.model.blocks)):
        for name in (name for name in variants if starts.get(name, 0) == block):
            for number in range(len(stream.batches)):
                stream.shelf.put((_key(name), block, number), stream.shelf.get((ORIGINAL, block, number)))
        with stream.model.loaded(block):
            stream.advance(ORIGINAL, block, keep=False)
            changed = _Changes()
            for name, variant in variants.items():
                if 0 <= starts.get(name, 0) <= block:
                    changed.put(stream.model, block, variant)
                    stream.advance(_key(name), block, keep=False)
        yield block


def _compare(
    stream: Stream, variants: Mapping[str, Variant], starts: Mapping[str, int],
    comparisons: Mapping[str, Comparison], activation_bytes: int,
) -> None:  # fmt: skip
    """The head on what came out of the last block; as many of the original's outputs are kept as memory allows."""
    end = stream.last + 1
    with stream.model.loaded(OUTSIDE):
        kept: list[int] = []
        outputs: dict[int, torch.Tensor] = {}
        for number in range(len(stream.batches)):
            outputs[number] = stream.finish(number, stream.shelf.get((ORIGINAL, end, number)))
            kept.append(number)
            held = sum(output.numel() * output.element_size() for output in outputs.values())
            if held < activation_bytes // 4 and number + 1 < len(stream.batches):
                continue
            changes = _Changes()
            for name, variant in variants.items():
                changes.put(stream.model, OUTSIDE, variant)
                key = ORIGINAL if starts.get(name) == OUTSIDE else _key(name)
                for one in kept:
                    changed = stream.finish(one, stream.shelf.get((key, end, one)))
                    comparisons[name].add(outputs[one], changed, stream.batches[one])
            changes.put(stream.model, OUTSIDE, lambda unit: None)
            kept, outputs = [], {}


class _Changes:
    """What variants changed in a block that is loaded, so that the next one finds its own weights in the others."""

    def __init__(self) -> None:
        self._changed: set[int] = set()
        self._biases: dict[int, torch.Tensor] = {}

    def put(self, model: BlockModel, block: int, variant: Variant) -> None:
        """A variant's weights; units that it leaves alone get their own back, and their bias."""
        for unit in model.units_of(block):
            spec = model.inventory.units[unit]
            changed = variant(spec)
            if changed is None and unit not in self._changed:
                continue
            if isinstance(changed, tuple):
                self._biases.setdefault(unit, model.bias_view(unit).clone())
            elif unit in self._biases:
                model.bias_view(unit).copy_(self._biases[unit])
            (self._changed.discard if changed is None else self._changed.add)(unit)
            put(
                model.view(unit),
                partial(model.bias_view, unit),
                unit_weight(model.source, spec) if changed is None else changed,
            )


def _key(name: str) -> str:
    """Names of variants are the callers' own, and may be `original`."""
    return "variant " + name


def whole(variant: Variant, units: Sequence[Unit]) -> dict[str, Changed]:
    """All of a variant's weights at once, by unit name."""
    found = {unit.name: variant(unit) for unit in units}
    return {name: weight for name, weight in found.items() if weight is not None}
