"""Block formats: weights to the bytes of their blocks and back, whatever the family."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.core.block_format import BlockFormat
from bitwright.core.errors import InvalidInput
from gpu_kernels import block_reference, block_search
from gpu_kernels.block_floats import FloatCodec
from gpu_kernels.block_layouts import LAYOUTS, Bytes, Plane
from gpu_kernels.grid_codec import GridCodec
from gpu_kernels.library import library

_Float32 = NDArray[np.float32]


class Codec(Protocol):
    """What a family of block formats offers; scales: float32 (n, 1) beside the blocks, or None."""

    def quantize(self, weight: _Float32, format: BlockFormat, **options: bool) -> tuple[Bytes, _Float32 | None]: ...
    def dequantize(self, blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int) -> _Float32: ...
    def largest(self, format: BlockFormat) -> float: ...


class GgmlCodec:
    """ggml's types: native where that was built, numpy otherwise, the same bytes."""

    def quantize(self, weight: _Float32, format: BlockFormat, *, fast: int = 1, **options: bool) -> tuple[Bytes, None]:
        layout, native = LAYOUTS[format.layout], library()
        x = block_reference.in_blocks(weight, layout.block)
        shape = weight.shape[0], format.blocks(weight.shape[1]) * layout.nbytes
        if native is None or x.size == 0:
            plain = format.layout in block_reference.PLAIN
            make = block_reference.quantize_plain if plain else block_search.quantize_searched
            return make(x, layout).reshape(shape), None
        out = np.empty(shape, np.uint8)
        spec, table = _native_layout(format.layout)
        at = None if table is None else table.ctypes.data
        native.bw_blocks_quantize(x.ctypes.data, x.shape[0], spec.ctypes.data, at, out.ctypes.data, fast)
        return out, None

    def dequantize(
        self, blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int, *, fast: int = 1
    ) -> _Float32:
        native = library()
        if native is None or blocks.size == 0:
            return block_reference.dequantize_blocks(blocks, format.layout, columns)
        rows, each = blocks.shape[0], format.blocks(columns)
        blocks = np.ascontiguousarray(blocks)
        out = np.empty((rows, each * format.block), np.float32)
        spec, table = _native_layout(format.layout)
        at = None if table is None else table.ctypes.data
        native.bw_blocks_dequantize(blocks.ctypes.data, rows * each, spec.ctypes.data, at, out.ctypes.data, fast)
        return out if out.shape[1] == columns else np.ascontiguousarray(out[:, :columns])

    def largest(self, format: BlockFormat) -> float:
        """Half of what the largest scales and levels of float16 blocks can hold."""
        layout = LAYOUTS[format.layout]
        level = max(map(abs, layout.table)) if layout.table else max(layout.zero, 1)
        level = 127 if layout.signed == "codes" else level
        return 32752.0 * level * max(1, layout.bias)


@lru_cache(maxsize=len(LAYOUTS))
def _native_layout(name: str) -> tuple[NDArray[np.int32], _Float32 | None]:
    """A layout as native/blocks.inl reads it: fifteen numbers, then every plane as runs."""
    layout = LAYOUTS[name]
    numbers = [
        layout.block, layout.nbytes, layout.groups, layout.bits, layout.zero, layout.affine, layout.scale_top,
        layout.bias, ("", "codes", "scales").index(layout.signed), layout.affine and layout.bits > 2,
        layout.halves["d"], layout.halves.get("m", 0), layout.tries, layout.refinements, len(layout.planes),
    ]  # fmt: skip
    for plane in layout.planes:
        field = ("codes", "scales", "mins").index(plane.field)
        runs = _runs(plane)
        numbers += [field, plane.low, plane.bits, len(runs), *(number for run in runs for number in run)]
    return np.array(numbers, np.int32), np.array(layout.table, np.float32) if layout.table else None


def _runs(plane: Plane) -> list[tuple[int, int, int, int]]:
    """(first value, byte, shift, count) of values side by side with one shift."""
    runs: list[tuple[int, int, int, int]] = []
    for i, (at, shift) in enumerate(zip(plane.at.tolist(), plane.shift.tolist(), strict=True)):
        if runs and runs[-1][2] == shift and runs[-1][1] + runs[-1][3] == at:
            runs[-1] = (*runs[-1][:3], runs[-1][3] + 1)
        else:
            runs.append((i, at, shift, 1))
    return runs


CODECS: Mapping[str, Codec] = {"ggml": GgmlCodec(), "float": FloatCodec(), "grid": GridCodec()}


def quantize_blocks(weight: _Float32, format: BlockFormat, **options: bool) -> tuple[Bytes, _Float32 | None]:
    """Blocks uint8 (rows, bytes) of finite float32 (rows, columns) weights, and the scales beside them.

    options: of the family's codec.
    """
    return CODECS[format.family].quantize(np.ascontiguousarray(weight), format, **options)


def dequantize_blocks(blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int) -> _Float32:
    """float32 (rows, columns) weights. Raises InvalidInput for bytes of another size."""
    parts = format.parts(blocks.shape[0] if blocks.ndim == 2 else 0, columns)
    found = None if scales is None else (scales.dtype, scales.shape)
    expected = (np.dtype(np.float32), parts[1].shape) if format.outer else None
    if blocks.dtype != np.uint8 or blocks.shape != parts[0].shape or found != expected:
        raise InvalidInput(
            f"these are not blocks of {format.name}",
            expected=f"uint8 {parts[0].shape}, scales {expected}",
            got=f"{blocks.dtype} {blocks.shape}, scales {found}",
        )
    return CODECS[format.family].dequantize(blocks, scales, format, columns)


def largest_weight(format: BlockFormat) -> float:
    """Magnitudes up to this are always held."""
    return CODECS[format.family].largest(format)
