"""The arrays of one group of a checkpoint: read a tensor, quantize it, encode it. No file is written here."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from bitwright.core.canonical import canonical_json
from bitwright.core.errors import BitwrightError, InvalidModel, Unsupported, VerificationFailed
from bitwright.core.inventory import DTYPE_BYTES, Unit
from bitwright.models import check_stored
from gpu_kernels.kernels import checksum, widen
from quantizers.base import Quantizer, Stored
from quantizers.bias import bias_shift, shifted
from quantizers.catalog import QUANTIZERS
from quantizers.containers.base import WriteRequest
from quantizers.containers.crew import finished
from quantizers.mixed import quantize

Context = Callable[[Unit], Mapping[str, Any]]


def make_groups(
    request: WriteRequest, indexes: list[int], context: Context | None
) -> Iterator[tuple[int, dict[str, NDArray[Any]], int]]:
    """(index, arrays by name, checksum of their meaning) of these groups, as they are done."""
    quantizer: Quantizer = QUANTIZERS.load(request.quantizer)

    def make(index: int) -> tuple[dict[str, NDArray[Any]], int]:
        return make_group(request, index, quantizer, context)

    for index, (arrays, mark) in finished(
        indexes, group_sizes(request, quantizer), make, workers=worker_count(quantizer, context)
    ):
        yield index, arrays, mark


def group_sizes(request: WriteRequest, quantizer: Quantizer | None = None) -> Callable[[int], int]:
    """Bytes of a group when it is worked on: its weights as read, as stored, and in between.

    quantizer: the one that works, or None when nothing is quantized. Most hold a float32 copy, and codes as bytes.
    """
    units, groups = request.inventory.units, request.blueprint.groups
    between = 0 if quantizer is None or getattr(quantizer, "takes_stored", False) else 5

    def size(index: int) -> int:
        stored = sum(spec.nbytes for spec in groups[index])
        number = index if index < len(units) or quantizer is None else _corrected(request, index, quantizer)
        if number is None or number >= len(units):
            return stored
        return stored + units[number].elements * (DTYPE_BYTES[units[number].dtype] + between)

    return size


def worker_count(quantizer: Quantizer, context: Context | None) -> int | None:
    """Quantizers that remember nothing are asked by all threads at once; moments are loaded one after another."""
    return None if context is None and getattr(quantizer, "stateless", False) else 1


def make_group(
    request: WriteRequest, index: int, quantizer: Quantizer, context: Context | None
) -> tuple[dict[str, NDArray[Any]], int]:
    """Arrays of one group and a checksum of their meaning."""
    value = _produce_in_pieces(request, index, quantizer) if context is None else None
    if value is not None:
        return request.container.encode(request.inventory.units[index], value), fingerprint(value)
    units, specs = request.inventory.units, request.blueprint.groups[index]
    if index >= len(units):
        stored = _read(request, index)
        if stored is None:
            if _corrected(request, index, quantizer) is not None:
                raise _no_room_for(request, index)
            return {}, 0
        tensor = request.inventory.rest[index - len(units)]
        check_stored(tensor.name, stored, tensor.dtype)
        number = _corrected(request, index, quantizer)
        if number is not None:
            stored = _with_bias_shift(request, number, stored, quantizer, context)
        arrays = request.container.encode_rest(tensor, stored)
        return arrays, checksum_of(arrays[spec.name] for spec in specs)
    value = _quantized(request, index, _weight(request, index, quantizer), quantizer, context)
    return request.container.encode(units[index], value), fingerprint(value)


def _read(request: WriteRequest, index: int) -> NDArray[Any] | None:
    """A group's tensor as it is stored; None: there is nothing to read, or a unit that only float32 can hold."""
    units = request.inventory.units
    if index >= len(units):
        specs = request.blueprint.groups[index]
        return request.source.read(request.inventory.rest[index - len(units)].name) if specs else None
    unit = units[index]
    return request.source.read(unit.tensor, unit.index) if unit.dtype in ("F16", "BF16") else None


def _produce_in_pieces(request: WriteRequest, index: int, quantizer: Quantizer) -> Stored | None:
    """A unit that its quantizer takes as it is read; None: it wants the whole matrix."""
    units, take = request.inventory.units, getattr(quantizer, "quantize_read", None)
    if take is None or index >= len(units) or units[index].dtype not in ("F16", "BF16", "F32"):
        return None
    unit = units[index]

    def read(start: int, stop: int) -> NDArray[Any]:
        return request.source.read(unit.tensor, unit.index, (start, stop))

    made: Stored | None = take(read, unit.shape, request.formats[index])
    return made


def _weight(request: WriteRequest, index: int, quantizer: Quantizer) -> NDArray[Any]:
    """A unit's weights as its quantizer takes them."""
    unit, stored = request.inventory.units[index], _read(request, index)
    if stored is None:
        weight: NDArray[Any] = request.source.read_float32(unit.tensor, unit.index)
    else:  # the kernels widen 16-bit floats many times faster than numpy
        weight = stored if getattr(quantizer, "takes_stored", False) else widen(stored)
    if weight.shape != unit.shape:
        raise InvalidModel(f"{unit.name} changed its shape", expected=str(unit.shape), got=str(weight.shape))
    return weight


def _quantized(
    request: WriteRequest, index: int, weight: NDArray[Any], quantizer: Quantizer, context: Context | None
) -> Stored:
    unit = request.inventory.units[index]
    more = context(unit) if context else {}
    value = quantize(quantizer, weight, request.formats[index], name=unit.name, **more)
    if value.format != request.formats[index]:
        raise VerificationFailed(
            f"{unit.name}: wrong format", expected=request.formats[index].label, got=value.format.label
        )
    return value


def _corrected(request: WriteRequest, index: int, quantizer: Quantizer) -> int | None:
    """The unit whose bias this group of the rest is, when the quantizer moves biases."""
    if not hasattr(quantizer, "bias_shift"):
        return None
    return request.unit_of_bias.get(request.inventory.rest[index - len(request.inventory.units)].name)


def _with_bias_shift(
    request: WriteRequest, number: int, stored: NDArray[Any], quantizer: Quantizer, context: Context | None
) -> NDArray[Any]:
    """The bias of unit `number`, moved. The unit is made again: no tensor waits for another, so that any may resume."""
    unit = request.inventory.units[number]
    weight = _weight(request, number, quantizer)
    value = _quantized(request, number, weight, quantizer, context)
    shift = bias_shift(quantizer, weight, value, name=unit.name, **(context(unit) if context else {}))
    return stored if shift is None else shifted(stored, shift, unit.name)


def _no_room_for(request: WriteRequest, index: int) -> BitwrightError:
    tensor = request.inventory.rest[index - len(request.inventory.units)]
    return Unsupported(
        f"the {request.container.name} container leaves out {tensor.name}, which {request.quantizer} corrects",
        expected="a container that stores biases", got="none of them", hint="use the packed container",
    )  # fmt: skip


def checksum_of(arrays: Iterable[NDArray[Any]], mark: int = 0) -> int:
    for array in arrays:
        mark = checksum(array, mark)
    return mark


def fingerprint(value: Stored) -> int:
    """A checksum of what a unit means: format and shape, then its arrays (codes, scales, ...)."""
    return checksum_of(value.arrays(), zlib.crc32(canonical_json([value.format.name, list(value.shape)])))
