"""Quantization errors dW = quantizer(W) - W of units, held within a memory limit or made again when asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.formats import Format
from bitwright.core.inventory import Inventory, Unit
from bitwright.models import ModelSource
from gpu_kernels.kernels import widen
from quantizers.base import Quantizer, dequantize
from quantizers.bias import bias_shift, shifted
from quantizers.mixed import quantize
from sensitivity.memory import free_memory

if TYPE_CHECKING:
    import torch

Float32 = NDArray[np.float32]

#: Above this, or this share of the free memory, the errors of all units are not kept but made again for every batch.
KEEP_BYTES, KEEP_SHARE = 2 << 30, 0.25


def load_quantizer(quantizer: str | Quantizer) -> Quantizer:
    """The quantizer of that name from the catalog, or the object itself. Raises UnknownName."""
    if not isinstance(quantizer, str):
        return quantizer
    from quantizers.catalog import QUANTIZERS

    loaded: Quantizer = QUANTIZERS.load(quantizer)
    return loaded


def read_weight(source: ModelSource, tensor: str, index: int | None = None) -> Float32:
    """float32 values of a tensor, or of matrix `index` of a stacked one; 16-bit floats by the native kernel."""
    if source.info(tensor).dtype in ("F16", "BF16"):
        return widen(source.read(tensor, index))
    return source.read_float32(tensor, index)


def unit_weight(source: ModelSource, unit: Unit) -> Float32:
    """float32 (out, in) weights of a unit as stored."""
    return np.ascontiguousarray(read_weight(source, unit.tensor, unit.index)).reshape(unit.shape)


def quantized_weight(quantizer: Quantizer, weight: Float32, format: Format, unit: Unit) -> Float32:
    """float32 (out, in): what the unit's weights are once stored in `format`. Raises InvalidModel, Unsupported."""
    return dequantize(quantize(quantizer, weight, format, name=unit.name))


def quantized_layer(
    quantizer: Quantizer, source: ModelSource, inventory: Inventory, unit: Unit, format: Format
) -> Float32 | tuple[Float32, Float32]:
    """The same of a unit of the model, with the float32 (out,) bias of its layer where the quantizer moves it."""
    weight, bias = unit_weight(source, unit), inventory.bias_of(unit)
    value = quantize(quantizer, weight, format, name=unit.name)
    shift = None if bias is None else bias_shift(quantizer, weight, value, name=unit.name)
    if bias is None or shift is None:
        return dequantize(value)
    moved = shifted(source.read(bias.name), shift, unit.name)
    return dequantize(value), widen(moved) if moved.dtype in (np.float16, np.uint16) else moved


class Deltas:
    """dW of every unit and format, with the quantizer that will be used."""

    def __init__(
        self, source: ModelSource, inventory: Inventory, formats: tuple[Format, ...], quantizer: str | Quantizer,
        *, keep_bytes: float | None = None,
    ) -> None:  # fmt: skip
        self.source = source
        self.inventory = inventory
        self.formats = formats
        self.quantizer = load_quantizer(quantizer)
        most = min(KEEP_BYTES, KEEP_SHARE * free_memory()) if keep_bytes is None else keep_bytes
        self._keep = inventory.weights * len(formats) * 4 <= most
        self._kept: dict[int, Float32] = {}
        self._there: dict[int, torch.Tensor] = {}
        self._energy: dict[int, NDArray[np.float64]] = {}

    def stack(self, unit: int) -> Float32:
        """float32 (formats, out, in) errors of unit number `unit`."""
        if unit in self._kept:
            return self._kept[unit]
        spec = self.inventory.units[unit]
        weight = unit_weight(self.source, spec)
        errors = np.empty((len(self.formats), *spec.shape), np.float32)
        for column, format in enumerate(self.formats):
            np.subtract(quantized_weight(self.quantizer, weight, format, spec), weight, out=errors[column])
        self._energy[unit] = np.array([np.vdot(e.astype(np.float64), e) for e in errors])
        if self._keep:
            self._kept[unit] = errors
        return errors

    def errors(self, unit: int) -> Iterator[Float32]:
        """float32 (out, in) errors of the unit in one format after another: all of them are held only where kept."""
        if self._keep:
            yield from self.stack(unit)
            return
        spec, energy = self.inventory.units[unit], []
        weight = unit_weight(self.source, spec)
        for format in self.formats:
            error = quantized_weight(self.quantizer, weight, format, spec) - weight
            energy.append(np.vdot(error.astype(np.float64), error))
            yield error
        self._energy[unit] = np.array(energy)

    def on_device(self, unit: int) -> torch.Tensor:
        """The same as a tensor on the computing device; kept there where they are kept at all."""
        from sensitivity.on_device import here

        if unit in self._there:
            return self._there[unit]
        found = here(self.stack(unit))
        if self._keep:
            self._there[unit] = found
        return found

    def keep_nothing(self) -> None:
        """Errors are made again whenever they are asked for: for models that are read block by block."""
        self._keep = False
        self._kept.clear()
        self._there.clear()

    def energy(self, unit: int) -> NDArray[np.float64]:
        """Sum of squared errors of the unit in each format, float64 (formats,)."""
        if unit not in self._energy and self._keep:
            self.stack(unit)
        elif unit not in self._energy:
            for _ in self.errors(unit):
                pass
        return self._energy[unit]

    def know_energy(self, unit: int, energy: NDArray[np.float64]) -> None:
        """Squared errors of a unit that somebody else quantized, float64 (formats,)."""
        self._energy[unit] = energy

    def knows_energy(self, unit: int) -> bool:
        return unit in self._energy

    def energies(self, progress: Any = None) -> NDArray[np.float64]:
        """float64 (units, formats) squared errors."""
        rows = []
        for index, unit in enumerate(self.inventory.units):
            rows.append(self.energy(index))
            if progress is not None:
                progress("quantize", (index + 1) / len(self.inventory.units), unit.name)
        return np.array(rows).reshape(len(self.inventory.units), len(self.formats))
