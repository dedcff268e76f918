"""What is gathered of the inputs of every unit of a model that is read block by block.

One walk, a block's units when their block comes, so that nothing grows with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from itertools import dropwhile

import numpy as np
import torch

from bitwright.core.inventory import Inventory
from bitwright.models import ModelSource
from sensitivity.base import Progress
from sensitivity.blocks import open_blocks
from sensitivity.data import Data
from sensitivity.input_moments import MeanSink, Moments, MomentSink, Sink, gather, passes
from sensitivity.on_device import here
from sensitivity.runner import Runner
from sensitivity.share import blocks_of
from sensitivity.stream import ACTIVATION_BYTES
from sensitivity.walk import Use, opened_walk


class Gathering:
    """Gives sinks, new ones for every block, what each unit of the block reads; units that read the very same tensors
    follow the first. leaders: unit -> the unit that its inputs went to, of this block."""

    def __init__(self, sinks: Callable[[], Sequence[Sink]], units: Collection[int]) -> None:
        self._sinks, self._units = sinks, units
        self.begin(0)

    def begin(self, block: int) -> None:
        self.leaders: dict[int, int] = {}
        self._now = self._sinks()

    def end(self, block: int) -> None:
        """What was gathered stays until the next block."""

    def see(self, number: int, uses: Sequence[Use], batch: Data) -> None:
        told = batch.inputs.get("attention_mask")
        mask = None if told is None else here(told).bool()
        of_unit: dict[int, list[torch.Tensor]] = {}
        for use in (use for use in uses if use.unit in self._units):
            of_unit.setdefault(use.unit, []).append(use.inputs)
        first: dict[tuple[int, ...], int] = {}
        for unit, read in sorted(of_unit.items()):
            leader = self.leaders.setdefault(unit, first.setdefault(tuple(x.data_ptr() for x in read), unit))
            if leader != unit:
                continue
            for x in read:
                inside = mask is not None and x.shape[:-1] == mask.shape
                rows = x[mask] if inside else x.flatten(0, -2)
                for sink in self._now:
                    sink.add(unit, rows)


@dataclass(frozen=True, eq=False)
class Gathered:
    """units: numbers of a block's units. The rest as of input_moments.gather, of those that some token reached."""

    units: tuple[int, ...]
    leaders: dict[str, str]
    moments: Moments
    means: Moments


def gather_blocks(
    source: ModelSource, inventory: Inventory, data: Data, progress: Progress, *,
    activation_bytes: int = ACTIVATION_BYTES,
) -> Generator[Gathered]:  # fmt: skip
    """Second moments and means of all units' inputs, block after block of the model, one block in memory.

    Raises Unsupported for models that cannot be read block by block, NotFinite.
    """
    names = [unit.name for unit in inventory.units]
    model = open_blocks(source, inventory)
    into: list[tuple[MomentSink, MeanSink]] = []

    def sinks() -> Sequence[Sink]:
        into[:] = [(MomentSink(), MeanSink())]
        return into[0]

    gathering = Gathering(sinks, range(len(names)))
    with opened_walk(model, data, np.arange(data.items, dtype=np.int64), None, activation_bytes) as walk:
        for block, share, words in walk.run(gathering):
            progress("calibrate", share, f"second moments of the inputs, {words}")
            leaders = {names[unit]: names[leader] for unit, leader in gathering.leaders.items()}
            moments, means = into[0]
            yield Gathered(model.units_of(block), leaders, moments.found(names), means.found(names))


def gather_whole(runner: Runner, data: Data, progress: Progress, *, first: int = 0) -> Generator[Gathered]:
    """The same of a model in memory, as many blocks in one pass as its accumulators may hold.

    first: unit whose pass is the first. Raises NotFinite.
    """
    inventory = runner.inventory
    for some in dropwhile(lambda units: first not in units, passes(inventory)):
        leaders, moments, means = gather(runner, data, some, progress)
        for block in (block for block in blocks_of(inventory) if block[0] in some):
            led = {name: leaders[name] for name in (inventory.units[unit].name for unit in block) if name in leaders}
            mine = set(led.values())
            yield Gathered(
                block, led, {unit: moments[unit] for unit in moments if unit in mine},
                {unit: means[unit] for unit in means if unit in mine},
            )  # fmt: skip
