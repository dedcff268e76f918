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
from sensitivity.local import no_linears
from sensitivity.runner import load_runner
from sensitivity.share import Array, UnitRows, blocks_of, by_units
from sensitivity.stream_options import activation_bytes, dtype_of, streams
from sensitivity.walk import Use, opened_walk


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

    def _sinks(self) -> tuple[MomentSink, RowSink]:
        return MomentSink(), RowSink(self.data, self.rows)

    def _wanted(self, moments: MomentSink, rows: RowSink) -> tuple[Sink, ...]:
        return (*((moments,) if self.moments else ()), *((rows,) if self.rows else ()))

    def _group(self, units: Sequence[int], leaders: dict[int, int], sinks: tuple[MomentSink, RowSink],
               bias: Callable[[int], torch.Tensor | None]) -> Group:  # fmt: skip
        names = [unit.name for unit in self.task.inventory.units]
        led = {names[unit]: names[leader] for unit, leader in leaders.items()}
        return Group(tuple(units), led, sinks[0].found(names), sinks[1].found(names), bias)

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
            sinks = self._sinks()
            words = f"inputs of {len(units)} units"
            leaders = gather_into(runner, self.data, units, self._wanted(*sinks), task.progress, words)
            yield self._group(units, leaders, sinks, bias)

    def _streamed(self, model: BlockModel, wanted: set[int]) -> Iterator[Group]:
        task = self.task

        def bias(number: int) -> torch.Tensor | None:
            place = model.places[number]
            name = place.parameter.removesuffix("weight") + "bias"
            if place.index is not None or name not in model.of_block:
                return None
            return model.parameter(name)[place.start : place.stop].float()

        gathering, missing = _Gathering(self, wanted), set(wanted)
        rows = np.arange(self.data.items, dtype=np.int64)
        with opened_walk(model, self.data, rows, None, activation_bytes(task)) as walk:
            for block, share, words in walk.run(gathering):
                task.progress("calibrate", share, words)
                here = [unit for unit in model.units_of(block) if unit in wanted]
                if here:
                    yield self._group(here, gathering.leaders, gathering.sinks, bias)
                missing.difference_update(here)
                if not missing:
                    return


class _Gathering:
    """Gives the sinks what each unit of the block reads; units that read the very same tensors follow the first."""

    def __init__(self, inputs: Inputs, units: set[int]) -> None:
        self.inputs, self.units = inputs, units
        self.begin(0)

    def begin(self, block: int) -> None:
        self.leaders: dict[int, int] = {}
        self.sinks = self.inputs._sinks()

    def end(self, block: int) -> None:
        """What was gathered stays until the next block."""

    def see(self, number: int, uses: Sequence[Use], batch: Data) -> None:
        wanted = self.inputs._wanted(*self.sinks)
        mask = batch.inputs.get("attention_mask")
        of_unit: dict[int, list[torch.Tensor]] = {}
        for use in (use for use in uses if use.unit in self.units):
            of_unit.setdefault(use.unit, []).append(use.inputs)
        first: dict[tuple[int, ...], int] = {}
        for unit, read in sorted(of_unit.items()):
            leader = self.leaders.setdefault(unit, first.setdefault(tuple(x.data_ptr() for x in read), unit))
            if leader != unit:
                continue
            for x in read:
                inside = mask is not None and x.shape[:-1] == mask.shape
                rows = x[torch.from_numpy(np.ascontiguousarray(mask)).bool()] if inside else x.flatten(0, -2)
                for sink in wanted:
                    sink.add(unit, rows)
