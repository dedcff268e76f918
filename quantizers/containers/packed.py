"""The `packed` container: bitwright's own layout, every format of the grammar. The specification is docs/packed.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.formats import FloatFormat, Format, IntFormat
from bitwright.core.inventory import Inventory, Unit
from gpu_kernels.kernels import pack, unpack
from quantizers.base import PassThrough, Quantized
from quantizers.containers.base import Container, float_tensor, stored_words
from quantizers.containers.tensorfile import TensorSpec


class PackedContainer(Container):
    """`<unit>.codes`, `<unit>.scales`, `<unit>.zeros`."""

    name = "packed"

    def check(self, inventory: Inventory, formats: Sequence[Format]) -> None:
        """Every int, bf16 and fp16 format can be held."""
        for unit, format in zip(inventory.units, formats, strict=True):
            if not isinstance(format, IntFormat | FloatFormat):
                raise Unsupported(
                    f"{unit.name}: packed cannot hold {format.name}", expected="int, bf16 or fp16 formats"
                )

    def unit_tensors(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...]:
        """See docs/packed.md, section 2."""
        if isinstance(format, FloatFormat):
            return float_tensor(unit, format)
        assert isinstance(format, IntFormat)
        rows, columns = unit.shape
        groups = format.groups(columns) if columns else 0
        specs = (
            TensorSpec(f"{unit.name}.codes", "U32", (rows, stored_words(columns, format))),
            TensorSpec(f"{unit.name}.scales", "F16", (rows, groups)),
        )
        if format.symmetric:
            return specs
        return (*specs, TensorSpec(f"{unit.name}.zeros", "U32", (groups, stored_words(rows, format))))

    def encode(self, unit: Unit, value: Quantized | PassThrough) -> dict[str, NDArray[Any]]:
        """Pack codes along the inputs and zero points along the outputs."""
        if isinstance(value, PassThrough):
            return {unit.name: value.array}
        arrays: dict[str, NDArray[Any]] = {
            f"{unit.name}.codes": pack(value.codes, value.format.width),
            f"{unit.name}.scales": value.scales,
        }
        if value.zeros is not None:
            arrays[f"{unit.name}.zeros"] = pack(np.ascontiguousarray(value.zeros.T), value.format.width)
        return arrays

    def decode(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Quantized | PassThrough:
        """The inverse of `encode`."""
        if isinstance(format, FloatFormat):
            return PassThrough(tensors(unit.name), format)
        assert isinstance(format, IntFormat)
        rows, columns = unit.shape
        codes = unpack(tensors(f"{unit.name}.codes"), format.width, columns)
        zeros = None
        if not format.symmetric:
            zeros = np.ascontiguousarray(unpack(tensors(f"{unit.name}.zeros"), format.width, rows).T)
        return Quantized(codes, tensors(f"{unit.name}.scales"), zeros, format)

    def metadata(self) -> dict[str, str]:
        """Says what the file is to someone who holds only the file."""
        return {"format": "pt", "container": "bitwright-packed", "version": str(self.version)}


CONTAINER = PackedContainer()
