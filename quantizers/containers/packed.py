"""The `packed` container: bitwright's own layout, every format of the grammar. The specification is docs/packed.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from bitwright.core.errors import Unsupported
from bitwright.core.formats import BlockFormat, FloatFormat, Format, IntFormat, MixedFormat
from bitwright.core.inventory import Inventory, Unit
from quantizers.base import Blocks, Mixed, PassThrough, Stored
from quantizers.containers.base import Container
from quantizers.containers.packed_ints import decode_ints, encode_ints
from quantizers.containers.packed_mixed import decode_mixed, encode_mixed, read_choice
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
        if isinstance(value, Mixed):
            return {unit.name + suffix: array for suffix, array in encode_mixed(value, unit.name).items()}
        return {unit.name + suffix: array for suffix, array in encode_ints(value, unit.name).items()}

    def decode(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Stored:
        """The inverse of `encode`."""
        if isinstance(format, FloatFormat):
            return PassThrough(tensors(unit.name), format)
        if isinstance(format, BlockFormat):
            scales = tensors(f"{unit.name}.scales") if format.outer else None
            return Blocks(tensors(f"{unit.name}.blocks"), scales, unit.shape[1], format)
        if isinstance(format, MixedFormat):
            return decode_mixed(unit, format, tensors)
        if not isinstance(format, IntFormat):
            raise Unsupported(f"{unit.name}: packed cannot hold {format.name}")
        return decode_ints(unit, format, tensors)

    def resolve(self, unit: Unit, format: Format, tensors: Callable[[str], NDArray[Any]]) -> Format:
        """The manifest names the members of a mixed format; which part takes which is stored beside the codes."""
        return read_choice(unit, format, tensors) if isinstance(format, MixedFormat) else format

    def metadata(self) -> dict[str, str]:
        """Says what the file is to someone who holds only the file."""
        return {"format": "pt", "container": "bitwright-packed", "version": str(self.version)}


CONTAINER = PackedContainer()
