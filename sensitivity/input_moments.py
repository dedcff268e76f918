"""Second moments of every unit's inputs, H = sum over tokens of x x', which calibrated quantizers weigh errors by.

Forward passes of the unquantized model only. Layers that read one tensor (q, k and v; gate and up) share one H. An
expert's H holds the tokens that were routed to it and no others. As many layers are gathered in one pass as fit
the memory, one block of the model at least; the rest of the model keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from bitwright.core.inventory import Inventory
from sensitivity.base import Progress
from sensitivity.capture import Key, weight_key
from sensitivity.data import Data
from sensitivity.memory import free_memory, free_on_device
from sensitivity.on_device import back, here
from sensitivity.runner import Runner
from sensitivity.share import blocks_of

#: Accumulators held at once: so many bytes, and no more than this share of the free memory.
LIMIT_BYTES, LIMIT_SHARE = 1 << 30, 0.25
#: Tokens (or image patches' worth of items) run at once.
BATCH_TOKENS = 2048

Moments = dict[str, NDArray[np.float32]]


class Watcher(TorchFunctionMode):
    """Gives `add` (unit number, (tokens, in) inputs) of watched weights while active; `begin` starts a batch."""

    def __init__(self, runner: Runner, units: Sequence[int], add: Callable[[int, torch.Tensor], None]) -> None:
        super().__init__()
        self._add = add
        self._watched = _watched(runner, units)
        self._mask: torch.Tensor | None = None
        self._inputs: dict[int, list[torch.Tensor]] = {}
        self.leader: dict[int, int] = {}

    def begin(self, data: Data) -> None:
        mask = data.inputs.get("attention_mask")
        self._mask = None if mask is None else here(mask).bool()
        self._inputs = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.linear:
            self._seen(args[1] if len(args) > 1 else kwargs["weight"], args[0] if args else kwargs["input"])
        return func(*args, **kwargs)

    def _seen(self, weight: torch.Tensor, inputs: torch.Tensor) -> None:
        for unit in self._watched.get(weight_key(weight), ()):
            self._inputs.setdefault(unit, []).append(inputs.detach())

    def finish(self) -> None:
        """Add the batch: units that read the very same tensors follow the first of them."""
        leaders: dict[tuple[int, ...], int] = {}
        for unit, inputs in sorted(self._inputs.items()):
            first = leaders.setdefault(tuple(x.data_ptr() for x in inputs), unit)
            leader = self.leader.setdefault(unit, self.leader.get(first, first))
            if leader == unit:
                for x in inputs:
                    self._add(unit, self._rows(x))
        self._inputs = {}

    def _rows(self, inputs: torch.Tensor) -> torch.Tensor:
        """(tokens, in), padding left out where the tokens still lie as in the batch."""
        if self._mask is not None and inputs.shape[:-1] == self._mask.shape:
            return inputs[self._mask]
        return inputs.reshape(-1, inputs.shape[-1])

    def watch(self, runner: Runner, data: Data, progress: Progress, words: str) -> None:
        """Runs the data through. Raises NotFinite."""
        with torch.inference_mode():
            for done, batch in _batches(data):
                self.begin(batch)
                with self:
                    runner.output(batch)
                self.finish()
                progress("calibrate", done, words)


def passes(
    inventory: Inventory, limit: float | None = None, units: Collection[int] | None = None
) -> list[tuple[int, ...]]:
    """Unit numbers by pass: whole blocks, as many as fit `limit` bytes (one at least). units: of these alone.

    limit: None: what the free memory allows, up to LIMIT_BYTES.
    """
    if limit is None:
        limit = min(LIMIT_BYTES, LIMIT_SHARE * min(free_memory(), free_on_device()))
    groups: list[list[int]] = []
    filled = 0
    for block in blocks_of(inventory):
        numbers = [number for number in block if units is None or number in units]
        if not numbers:
            continue
        size = sum(8 * inventory.units[n].shape[1] ** 2 for n in numbers)
        if not groups or filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1] += numbers
        filled += size
    return [tuple(group) for group in groups]


class Sink(Protocol):
    """Who gathers something of every unit's inputs. rows: (tokens, in)."""

    def add(self, unit: int, rows: torch.Tensor) -> None: ...


class MomentSink:
    """H = sum of x x' a unit."""

    def __init__(self) -> None:
        self._sums: dict[int, torch.Tensor] = {}

    def add(self, unit: int, rows: torch.Tensor) -> None:
        product = rows.T.float() @ rows.float()
        if unit in self._sums:
            self._sums[unit].add_(product)
        else:
            self._sums[unit] = product.double()

    def found(self, names: Sequence[str]) -> Moments:
        """float32 (in, in) by unit name. The sums are given away on the way: they and these never are all held."""
        return {names[unit]: back(self._sums.pop(unit)).astype(np.float32) for unit in list(self._sums)}


class MeanSink:
    """The mean of a unit's inputs."""

    def __init__(self) -> None:
        self._sums: dict[int, torch.Tensor] = {}
        self._counts: dict[int, int] = {}

    def add(self, unit: int, rows: torch.Tensor) -> None:
        total = rows.double().sum(dim=0)
        self._sums[unit] = total if unit not in self._sums else self._sums[unit] + total
        self._counts[unit] = self._counts.get(unit, 0) + len(rows)

    def found(self, names: Sequence[str]) -> Moments:
        """float32 (in,) by unit name."""
        return {
            names[unit]: back(total / max(1, self._counts[unit])).astype(np.float32)
            for unit, total in self._sums.items()
        }


class RowSink:
    """About `count` of a unit's inputs: every so many-th row of each batch, the first one always; an expert has its
    share."""

    def __init__(self, data: Data, count: int) -> None:
        self._step = max(1, data.tokens // max(1, count))
        self._kept: dict[int, list[torch.Tensor]] = {}

    def add(self, unit: int, rows: torch.Tensor) -> None:
        self._kept.setdefault(unit, []).append(rows[:: self._step].to("cpu", torch.float32, copy=True))

    def found(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """float32 (about `count`, in) by unit name, on the CPU."""
        return {names[unit]: torch.cat(rows) for unit, rows in self._kept.items() if sum(map(len, rows))}


def gather_into(
    runner: Runner, data: Data, units: Sequence[int], sinks: Sequence[Sink], progress: Progress, words: str
) -> dict[int, int]:
    """One pass of the data; unit -> the unit that its inputs went to, of those that some token reached."""

    def add(unit: int, rows: torch.Tensor) -> None:
        for sink in sinks:
            sink.add(unit, rows)

    watcher = Watcher(runner, units, add)
    watcher.watch(runner, data, progress, words)
    return watcher.leader


def gather(
    runner: Runner, data: Data, units: Sequence[int], progress: Progress
) -> tuple[dict[str, str], Moments, Moments]:
    """(unit name -> name of the unit that holds its H, H by unit name: float32 (in, in), mean inputs: float32 (in,)).

    Units that no token reached, or that are used in ways nobody listens to, are in neither. Raises NotFinite.
    """
    sink, means, names = MomentSink(), MeanSink(), [unit.name for unit in runner.inventory.units]
    words = f"second moments of the inputs of {len(units)} units"
    leaders = gather_into(runner, data, units, (sink, means), progress, words)
    return {names[unit]: names[leader] for unit, leader in leaders.items()}, sink.found(names), means.found(names)


def _watched(runner: Runner, units: Sequence[int]) -> dict[Key, tuple[int, ...]]:
    """Units by the weight that uses them."""
    watched: dict[Key, tuple[int, ...]] = {}
    parameters = runner.parameters
    for number in units:
        place = runner.slices[runner.inventory.units[number].name]
        if place.transposed:  # the layer's inputs run along the unit's rows: no moments of its columns
            continue
        matrix = parameters[place.parameter].data
        matrix = matrix if place.index is None else matrix[place.index]
        key = weight_key(matrix)
        watched[key] = (*watched.get(key, ()), number)
    return watched


def _batches(data: Data) -> Iterator[tuple[float, Data]]:
    """(share done, items) in the data's order, about BATCH_TOKENS at a time."""
    size = max(1, round(BATCH_TOKENS * data.items / max(1, data.tokens)))
    size = min(size, 32) if data.kind == "images" else size
    for start in range(0, data.items, size):
        rows = np.arange(start, min(start + size, data.items))
        yield (start + len(rows)) / data.items, data.take(rows).trimmed()
