"""Block formats: weights to the bytes of their blocks and back, whatever the family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.core.block_format import BlockFormat
from bitwright.core.errors import InvalidInput
from gpu_kernels import block_reference, block_search
from gpu_kernels.block_floats import FloatCodec
from gpu_kernels.block_layouts import LAYOUTS, Bytes

_Float32 = NDArray[np.float32]


class Codec(Protocol):
    """What a family of block formats offers; scales: float32 (n, 1) beside the blocks, or None."""

    def quantize(self, weight: _Float32, format: BlockFormat) -> tuple[Bytes, _Float32 | None]: ...
    def dequantize(self, blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int) -> _Float32: ...
    def largest(self, format: BlockFormat) -> float: ...


@dataclass(frozen=True)
class GgmlCodec:
    """ggml's types."""

    def quantize(self, weight: _Float32, format: BlockFormat) -> tuple[Bytes, None]:
        layout = LAYOUTS[format.layout]
        x = block_reference.in_blocks(weight, layout.block)
        plain = format.layout in block_reference.PLAIN
        made = block_reference.quantize_plain(x, layout) if plain else block_search.quantize_searched(x, layout)
        return made.reshape(weight.shape[0], format.blocks(weight.shape[1]) * layout.nbytes), None

    def dequantize(self, blocks: Bytes, scales: _Float32 | None, format: BlockFormat, columns: int) -> _Float32:
        return block_reference.dequantize_blocks(blocks, format.layout, columns)

    def largest(self, format: BlockFormat) -> float:
        """Half of what the largest scales and levels of float16 blocks can hold."""
        layout = LAYOUTS[format.layout]
        level = max(map(abs, layout.table)) if layout.table else max(layout.zero, 1)
        level = 127 if layout.signed == "codes" else level
        return 32752.0 * level * max(1, layout.bias)


CODECS: Mapping[str, Codec] = {"ggml": GgmlCodec(), "float": FloatCodec()}


def quantize_blocks(weight: _Float32, format: BlockFormat) -> tuple[Bytes, _Float32 | None]:
    """Blocks uint8 (rows, bytes) of finite float32 (rows, columns) weights, and the scales beside them."""
    return CODECS[format.family].quantize(np.ascontiguousarray(weight), format)


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
