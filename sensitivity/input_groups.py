"""What is gathered of the inputs of every unit, some units at a time: second moments, samples of rows, or both.

A model in memory gathers as many units in one pass as fit; a model that is read block by block gathers a block's units
when its block comes, in one walk, so that nothing grows with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sensitivity.base import ScoringTask
from sensitivity.blocks import BlockModel, open_blocks
from sensitivity.data import Data
from sensitivity.input_moments import Moments, MomentSink, RowSink, Sink, gather_into, passes
from sensitivity.input_walk import Gathering
from sensitivity.local import no_linears
from sensitivity.runner import load_runner
from sensitivity.share import Array, UnitRows, blocks_of, by_units
from sensitivity.stream_options import activation_bytes, dtype_of, streams
from sensitivity.walk import opened_walk


@dataclass(frozen=True, eq=False)
class Group:
    """leaders: unit name -> the unit that holds what was gathered (units that read one tensor share it). moments, rows:
    by unit name. bias: a unit's bias (out,) or None, by its number, as long as the group is looked at."""

    units: tuple[int, ...]
    leaders: dict[str, str]
    moments: Moments
    rows: dict[str, torch.Tensor]
    bias: Callable[[int], torch.Tensor | None]


class Inputs:
    """The inputs of a task's units. moments, rows: what is gathered of them (rows: about how many); warnings: of
    loading the model. Raises Unsupported, OutOfResources."""

    def __init__(self, task: ScoringTask, data: Data, *, moments: bool = True, rows: int = 0) -> None:
        self.task, self.data, self.moments, self.rows = task, data, moments, rows
        self.warnings: tuple[str, ...] = ()
        self._model: BlockModel | None = None
        if streams(task):
            task.deltas.keep_nothing()
            self._model = open_blocks(task.source, task.inventory, dtype_of(task))
        else:
            self._runner = load_runner(task.source, task.inventory)
            self.warnings = self._runner.warnings

    def groups(self, units: Collection[int]) -> Iterator[Group]:
        """What was gathered of these units, some at a time. Raises NotFinite, Unsupported."""
        return self._whole(units) if self._model is None else self._streamed(self._model, set(units))

    def shared(self, rows: UnitRows) -> dict[int, dict[str, Array]]:
        """What `rows` says of each unit that some token reached, whoever computes it. Raises Unsupported."""
        found = by_units(self.task, blocks_of(self.task.inventory), rows)
        if not found:
            raise no_linears(self.task.inventory)
        return found

    def _sinks(self) -> tuple[Sink, ...]:
        """New ones, which `_group` reads."""
        self._into = MomentSink(), RowSink(self.data, self.rows)
        return (*(self._into[:1] if self.moments else ()), *(self._into[1:] if self.rows else ()))

    def _group(
        self, units: Sequence[int], leaders: dict[int, int], bias: Callable[[int], torch.Tensor | None]
    ) -> Group:
        names = [unit.name for unit in self.task.inventory.units]
        led = {names[unit]: names[leader] for unit, leader in leaders.items()}
        moments, rows = self._into
        return Group(tuple(units), led, moments.found(names), rows.found(names), bias)

    def _whole(self, wanted: Collection[int]) -> Iterator[Group]:
        runner, task = self._runner, self.task
        parameters = runner.parameters

        def bias(number: int) -> torch.Tensor | None:
            place = runner.slices[task.inventory.units[number].name]
            if place.index is not None:
                return None
            found = parameters.get(place.parameter.removesuffix("weight") + "bias")
            return None if found is None else found[place.start : place.stop]

        for units in passes(task.inventory, units=wanted):
            words = f"inputs of {len(units)} units"
            leaders = gather_into(runner, self.data, units, self._sinks(), task.progress, words)
            yield self._group(units, leaders, bias)

    def _streamed(self, model: BlockModel, wanted: set[int]) -> Iterator[Group]:
        task = self.task

        def bias(number: int) -> torch.Tensor | None:
            place = model.places[number]
            name = place.parameter.removesuffix("weight") + "bias"
            if place.index is not None or name not in model.of_block:
                return None
            return model.parameter(name)[place.start : place.stop].float()

        gathering, missing = Gathering(self._sinks, wanted), set(wanted)
        rows = np.arange(self.data.items, dtype=np.int64)
        with opened_walk(model, self.data, rows, None, activation_bytes(task)) as walk:
            for block, share, words in walk.run(gathering):
                task.progress("calibrate", share, words)
                here = [unit for unit in model.units_of(block) if unit in wanted]
                if here:
                    yield self._group(here, gathering.leaders, bias)
                missing.difference_update(here)
                if not missing:
                    return
