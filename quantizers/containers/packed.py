"""The `packed` container: bitwright's own layout, every format of the grammar. The specification is docs/packed.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidModel, Unsupported
from bitwright.core.formats import BlockFormat, FloatFormat, Format, IntFormat
from bitwright.core.inventory import Inventory, Unit
from gpu_kernels.kernels import pack, unpack, widen
from gpu_kernels.radix import pack_radix, unpack_radix
from quantizers.base import Blocks, PassThrough, Quantized, Stored, float32_to_bf16
from quantizers.containers.base import Container
from quantizers.containers.tensorfile import TensorSpec


class PackedContainer(Container):
    """The parts of each unit's format (`Format.parts`), named `<unit><suffix>`."""

    name = "packed"

    def check(self, inventory: Inventory, formats: Sequence[Format]) -> None:
        """Every format of the grammar can be held."""

    def unit_tensors(self, unit: Unit, format: Format) -> tuple[TensorSpec, ...]:
        """See docs/packed.md, sections 2 and 3."""
        return tuple(TensorSpec(unit.name + p.suffix, p.dtype, p.shape) for p in format.parts(*unit.shape))

    def encode(self, unit: Unit, value: Stored) -> dict[str, NDArray[Any]]:
        """Pack codes along the inputs and zero points along the outputs."""
        if isinstance(value, PassThrough):
            return {unit.name: value.array}
        if isinstance(value, Blocks):
            arrays: dict[str, NDArray[Any]] = {f"{unit.name}.blocks": value.data}
            return arrays if value.scales is None else {**arrays, f"{unit.name}.scales": value.scales}
        return {unit.name + suffix: array for suffix, array in encode_ints(value, unit.name).items()}

    def decode(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Stored:
        """The inverse of `encode`."""
        if isinstance(format, FloatFormat):
            return PassThrough(tensors(unit.name), format)
        if isinstance(format, BlockFormat):
            scales = tensors(f"{unit.name}.scales") if format.outer else None
            return Blocks(tensors(f"{unit.name}.blocks"), scales, unit.shape[1], format)
        if not isinstance(format, IntFormat):
            raise Unsupported(f"{unit.name}: packed cannot hold {format.name}")
        return decode_ints(unit, format, tensors)

    def metadata(self) -> dict[str, str]:
        """Says what the file is to someone who holds only the file."""
        return {"format": "pt", "container": "bitwright-packed", "version": str(self.version)}


CONTAINER = PackedContainer()


def encode_ints(value: Quantized, name: str) -> dict[str, NDArray[Any]]:
    """`.codes`, `.scales` and `.zeros` of an integer format, by suffix."""
    format, scales, zeros = value.format, value.scales, value.zeros
    if format.tensor:
        if scales.size and not ((scales == scales[:1]).all() and (zeros is None or (zeros == zeros[:1]).all())):
            raise Unsupported(f"{name}: {format.name} holds one scale for all rows", got="several")
        scales, zeros = scales[:1], None if zeros is None else zeros[:1]
    codes = pack_radix(value.codes, format.levels) if format.per_word else value.words
    arrays: dict[str, NDArray[Any]] = {".codes": codes}
    arrays[".scales"] = float32_to_bf16(scales) if format.scale == "BF16" else scales
    if zeros is not None:
        arrays[".zeros"] = pack(np.ascontiguousarray(zeros.T), format.width)
    return arrays


def decode_ints(unit: Unit, format: IntFormat, tensors: Callable[[str], NDArray[Any]]) -> Quantized:
    """The inverse of `encode_ints`. Raises InvalidModel for codes that the format has not."""
    rows, columns = unit.shape
    words = tensors(f"{unit.name}.codes")
    scales, zeros = tensors(f"{unit.name}.scales"), None
    if not format.symmetric:
        count = min(rows, 1) if format.tensor else rows
        zeros = np.ascontiguousarray(unpack(tensors(f"{unit.name}.zeros"), format.width, count).T)
    if format.scale == "BF16":
        scales = widen(scales)
    if format.tensor:
        scales = np.repeat(scales, rows, axis=0)
        zeros = None if zeros is None else np.repeat(zeros, rows, axis=0)
    if format.levels == 1 << format.width:
        return Quantized.packed(words, columns, scales, zeros, format)
    codes = unpack_radix(words, format.levels, columns) if format.per_word else unpack(words, format.width, columns)
    for found in (codes, zeros):
        if found is not None and found.size and int(found.max()) > format.top:
            raise InvalidModel(
                f"{unit.name}: a code is out of range", expected=f"up to {format.top}", got=str(found.max())
            )
    return Quantized(codes, scales, zeros, format)
