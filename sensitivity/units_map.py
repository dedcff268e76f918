"""Where a unit's weights lie in the loaded module.

Checkpoints and modules disagree: a file lists `experts.3.w1.weight` where the module holds one parameter with all
experts stacked and gate and up rows on top of each other. Names differ from one architecture to the next, values do
not: a unit is looked up by name where that works and by its content where it does not, and every answer is
checked by comparing all values. A unit that is nowhere raises InvalidModel; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.inventory import Inventory, Unit
from bitwright.models import ModelSource
from sensitivity.deltas import unit_weight

#: What a unit is changed to: float32 (out, in) weights, or these and the float32 (out,) bias of its layer.
Changed = NDArray[np.float32] | tuple[NDArray[np.float32], NDArray[np.float32]]
#: Leading numbers of the first row that a lookup by content goes by; all values are compared afterwards.
FINGERPRINT = 64


@dataclass(frozen=True)
class Slice:
    """Rows `start..stop` of matrix `index` of parameter `parameter`; `transposed`: of the matrix's transpose."""

    parameter: str
    index: int | None
    start: int
    stop: int
    transposed: bool = False

    def view(self, parameters: Mapping[str, torch.nn.Parameter]) -> torch.Tensor:
        """The unit's (out, in) weights inside the module: a view, writable in place."""
        matrix = parameters[self.parameter].data
        matrix = matrix if self.index is None else matrix[self.index]
        return (matrix.T if self.transposed else matrix)[self.start : self.stop]

    @property
    def bias(self) -> str:
        """Name of the parameter that a linear layer with these weights adds to its outputs, if it has one."""
        return self.parameter.removesuffix("weight") + "bias"

    def bias_view(self, parameters: Mapping[str, torch.nn.Parameter]) -> torch.Tensor:
        """The (out,) biases of the unit's rows: a view, writable in place. Raises Unsupported."""
        found = parameters.get(self.bias)
        if found is None or found.ndim != 1 or self.index is not None or self.transposed:
            raise Unsupported(
                f"the bias of {self.parameter} is not where the loaded model keeps its weights",
                expected=self.bias, got="none", hint="use a quantizer that leaves biases alone",
            )  # fmt: skip
        return found.data[self.start : self.stop]


def put(weights: torch.Tensor, bias: Callable[[], torch.Tensor], changed: Changed) -> None:
    """Writes a change into the views of a unit's weights and of its bias, which is asked for when it changes."""
    weight, moved = changed if isinstance(changed, tuple) else (changed, None)
    weights.copy_(torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32)))
    if moved is not None:
        bias().copy_(torch.from_numpy(np.ascontiguousarray(moved, dtype=np.float32)))


def map_units(
    source: ModelSource, inventory: Inventory, parameters: Mapping[str, torch.nn.Parameter]
) -> dict[str, Slice]:
    """Unit name -> slice of a parameter that holds exactly its values, in the parameter's precision.

    Raises InvalidModel.
    """
    dtype = next((parameter.dtype for parameter in parameters.values()), torch.float32)
    found: dict[str, Slice] = {}
    index: _ContentIndex | None = None
    for unit in inventory.units:
        weight = torch.from_numpy(unit_weight(source, unit)).to(dtype).float().numpy()
        place = _by_name(unit, weight, parameters)
        if place is None:
            index = _ContentIndex(parameters) if index is None else index
            place = index.find(weight)
        if place is None:
            raise InvalidModel(
                f"{unit.name}: the loaded model holds these weights nowhere",
                expected="every planned tensor of the files to be a weight of the module",
                got=f"no parameter with these {unit.shape[0]} x {unit.shape[1]} values",
                hint="the files and config.json may belong to different models",
            )
        found[unit.name] = place
    return found


def _by_name(unit: Unit, weight: NDArray[np.float32], parameters: Mapping[str, torch.nn.Parameter]) -> Slice | None:
    names = (unit.tensor, *(n for n in parameters if n.endswith("." + unit.tensor) or unit.tensor.endswith("." + n)))
    for name in names:
        if name not in parameters:
            continue
        place = Slice(name, unit.index, 0, unit.shape[0])
        if parameters[name].ndim == (2 if unit.index is None else 3) and _same(place, parameters, weight):
            return place
    return None


def _same(place: Slice, parameters: Mapping[str, torch.nn.Parameter], weight: NDArray[np.float32]) -> bool:
    try:
        view = place.view(parameters)
    except IndexError:
        return False
    return tuple(view.shape) == weight.shape and bool(torch.equal(view.float(), torch.from_numpy(weight)))


def _matrices(parameters: Mapping[str, torch.nn.Parameter]) -> Iterator[tuple[str, int | None, torch.Tensor]]:
    for name, parameter in parameters.items():
        if parameter.ndim == 2:
            yield name, None, parameter.data
        elif parameter.ndim == 3:
            for index in range(parameter.shape[0]):
                yield name, index, parameter.data[index]


class _ContentIndex:
    """Where a matrix of a given shape can start in the parameters, by the bytes of its first row.

    Fused parameters stack whole matrices, so a unit of r rows starts a multiple of r from the top or the bottom
    (gate over up; query over key over value). Only these places are looked at.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self._by_shape: dict[tuple[int, ...], dict[bytes, list[Slice]]] = {}
        self._taken: set[Slice] = set()

    def find(self, weight: NDArray[np.float32]) -> Slice | None:
        """The slice with these values; of several equal ones, the first that no other unit holds yet."""
        if weight.shape not in self._by_shape:
            self._by_shape[weight.shape] = self._index(*weight.shape)
        places = self._by_shape[weight.shape].get(weight[0, :FINGERPRINT].tobytes(), [])
        matches = [place for place in places if _same(place, self._parameters, weight)]
        free = [place for place in matches if place not in self._taken]
        self._taken.update(free[:1])
        return next(iter(free or matches), None)

    def _index(self, rows: int, columns: int) -> dict[bytes, list[Slice]]:
        found: dict[bytes, list[Slice]] = {}
        for name, index, stored in _matrices(self._parameters):
            for transposed in (False, True):
                matrix = stored.T if transposed else stored
                total = matrix.shape[0]
                if matrix.shape[1] != columns or total < rows:
                    continue
                starts = {k * rows for k in range(total // rows)} | {
                    total - k * rows for k in range(1, total // rows + 1)
                }
                for start in sorted(starts):
                    key = matrix[start, :FINGERPRINT].float().contiguous().numpy().tobytes()
                    found.setdefault(key, []).append(Slice(name, index, start, start + rows, transposed))
        return found
