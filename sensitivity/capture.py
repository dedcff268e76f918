"""Listens to the linear layers of a forward pass: their inputs, and the gradients of their outputs.

Every `torch.nn.functional.linear` whose weight is a planned parameter (or one matrix of a stacked one) is recorded with
its input and output. With those, the gradient of each sequence's own sum is a product of two small matrices a layer,
and a whole batch needs one backward pass, without a weight gradient being kept. Weights used in any other way are
differentiated by autograd, one item at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sensitivity.runner import Runner
from sensitivity.units_map import Slice

Key = tuple[int, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Part:
    """A planned unit inside a layer's weight: its number and its rows."""

    unit: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Call:
    """One use of a layer. inputs: detached (..., in); output: (..., out), part of the graph.

    tokens: of an expert, which rows of the `of` rows that reached its block it was given (int64); None: not known.
    """

    parts: tuple[Part, ...]
    inputs: torch.Tensor
    output: torch.Tensor
    tokens: torch.Tensor | None = None
    of: int = 0


class _Recorder(TorchFunctionMode):
    """Records calls while active."""

    def __init__(self, layers: dict[Key, tuple[Part, ...]]) -> None:
        super().__init__()
        self.layers = layers
        self.calls: list[Call] = []
        self._taken: tuple[torch.Tensor, int] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.__getitem__:
            self._note(*args)
        if func is not torch.nn.functional.linear:
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        parts = self.layers.get(weight_key(weight))
        if parts is None:
            return result
        if not result.requires_grad:
            # The first planned layers: here the graph begins.
            result = result.detach().requires_grad_()
        inputs = args[0] if args else kwargs["input"]
        known = self._taken if inputs.ndim == 2 and self._taken and len(self._taken[0]) == len(inputs) else None
        self.calls.append(Call(parts, inputs.detach(), result, *(known or ())))
        return result

    def _note(self, whole: torch.Tensor, index: Any) -> None:
        """The rows that were taken last of a matrix: eager experts take their tokens so, just before their layers."""
        if isinstance(index, torch.Tensor) and index.dtype == torch.int64 and index.ndim == 1 and whole.ndim == 2:
            self._taken = (index.detach(), len(whole))


def weight_key(weight: torch.Tensor) -> Key:
    return weight.data_ptr(), tuple(weight.shape), tuple(weight.stride())


@dataclass(frozen=True, eq=False)
class Listener:
    """layers: linear weights by address -> units. others: units that autograd must differentiate, by number."""

    layers: dict[Key, tuple[Part, ...]]
    others: dict[int, Slice]

    @contextmanager
    def listen(self) -> Iterator[list[Call]]:
        """Calls made inside the block, in order."""
        recorder = _Recorder(self.layers)
        with torch.enable_grad(), recorder:
            yield recorder.calls


def make_listener(runner: Runner) -> Listener:
    """A listener for every unit of the runner's inventory; weights used outside linears are not found out here."""
    places = {number: runner.slices[unit.name] for number, unit in enumerate(runner.inventory.units)}
    return listener_for(runner.parameters, places)


def listener_for(parameters: Mapping[str, torch.nn.Parameter], places: Mapping[int, Slice]) -> Listener:
    """A listener for units at these places; transposed ones go to `others`."""
    found: dict[Key, list[Part]] = {}
    others: dict[int, Slice] = {}
    for number, place in places.items():
        if place.transposed:
            others[number] = place
            continue
        matrix = parameters[place.parameter].data
        matrix = matrix if place.index is None else matrix[place.index]
        found.setdefault(weight_key(matrix), []).append(Part(number, place.start, place.stop))
    return Listener({key: tuple(parts) for key, parts in found.items()}, others)


def per_item(call: Call, items: int) -> tuple[torch.Tensor, tuple[int, ...]] | None:
    """Inputs as (items, positions, in) and the shape to give output gradients; None when items cannot be told apart."""
    inputs = call.inputs
    if items == 1 or (inputs.ndim >= 2 and inputs.shape[0] == items):
        shaped = inputs.reshape(items, -1, inputs.shape[-1])
        return shaped, (items, shaped.shape[1], call.output.shape[-1])
    return None
