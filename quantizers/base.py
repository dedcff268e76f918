"""What a quantizer gives: codes with scales and zero points, blocks of bytes, or weights in a 16-bit format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidInput, InvalidModel, Unsupported
from bitwright.core.formats import BlockFormat, FloatFormat, Format, IntFormat, MixedFormat
from gpu_kernels.blocks import dequantize_blocks
from gpu_kernels.kernels import dequantize_codes, pack, unpack, unpack_dequantize, widen

Float32Matrix = NDArray[np.float32]
#: Weights handled at once: temporaries of a few tens of MB, whatever the size of the matrix.
BLOCK_ELEMENTS = 1 << 21


class Quantized:
    """A unit as integers: weight = (code - zero) * scale, one scale (and zero) a row and group; `sign`: +-scale.

    codes: uint8 (out, in), each below format.levels. scales: (out, groups), never zero, may be negative; float16, or
    float32 for formats with bf16 or fp32 scales. zeros: uint8 (out, groups), or None for symmetric formats, whose zero
    is format.middle. A format with one scale a tensor repeats it here.
    """

    def __init__(
        self, codes: NDArray[np.uint8], scales: NDArray[Any], zeros: NDArray[np.uint8] | None, format: IntFormat
    ) -> None:
        self.scales, self.zeros, self.format = scales, zeros, format
        self.shape: tuple[int, int] = (codes.shape[0], codes.shape[1])
        self._codes: NDArray[np.uint8] | None = codes
        self._words: NDArray[np.uint32] | None = None

    @classmethod
    def packed(
        cls, words: NDArray[np.uint32], columns: int, scales: NDArray[Any], zeros: NDArray[np.uint8] | None,
        format: IntFormat,
    ) -> Quantized:  # fmt: skip
        """The same from rows of `columns` codes in a dense stream (`words`), unpacked only when somebody asks."""
        made = cls(np.empty((words.shape[0], 0), np.uint8), scales, zeros, format)
        made.shape, made._codes, made._words = (words.shape[0], columns), None, words
        return made

    @property
    def codes(self) -> NDArray[np.uint8]:
        if self._codes is None:
            assert self._words is not None
            self._codes = unpack(self._words, self.format.width, self.shape[1])
        return self._codes

    @property
    def words(self) -> NDArray[np.uint32]:
        """The codes as a dense stream of `format.width` bits each, every row on a new word."""
        if self._words is None:
            assert self._codes is not None
            self._words = pack(self._codes, self.format.width)
        return self._words

    def dequantize(self) -> Float32Matrix:
        """float32 (out, in) = float32(scale) * (float32(code) - float32(zero)), in this order."""
        if self.format.centered:
            spans = [stop - start for start, stop in group_spans(self.shape[1], self.format)]
            signs = np.where(self.codes > 0, np.float32(1), np.float32(-1))
            return signs * np.repeat(self.scales.astype(np.float32), spans, axis=1)
        columns = max(1, self.shape[1])
        group = min(self.format.group or columns, columns)
        zeros = self.zeros
        if zeros is None and self.format.middle != 1 << (self.format.width - 1):
            zeros = np.full(self.scales.shape, self.format.middle, np.uint8)
        if self._codes is None and self.scales.dtype == np.float16:
            return unpack_dequantize(self.words, self.scales, zeros, self.format.width, group, self.shape[1])
        return dequantize_codes(self.codes, self.scales, zeros, self.format.width, group)

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What is stored, in a fixed order."""
        return (self.words, self.scales) if self.zeros is None else (self.words, self.scales, self.zeros)


@dataclass(frozen=True, eq=False)
class Blocks:
    """A unit as blocks of bytes (docs/packed.md section 3). data: uint8 (out, bytes a row). scales: float32 (n, 1)."""

    data: NDArray[np.uint8]
    scales: NDArray[np.float32] | None
    columns: int
    format: BlockFormat

    @property
    def shape(self) -> tuple[int, int]:
        return self.data.shape[0], self.columns

    def dequantize(self) -> Float32Matrix:
        """float32 (out, in), for ggml's types bit for bit what ggml computes."""
        return dequantize_blocks(self.data, self.scales, self.format, self.columns)

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What is stored, in a fixed order."""
        return (self.data,) if self.scales is None else (self.data, self.scales)


@dataclass(frozen=True, eq=False)
class PassThrough:
    """A unit in a 16-bit float format. array: float16, or uint16 holding bfloat16 bits; (out, in)."""

    array: NDArray[Any]
    format: FloatFormat

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.array.shape
        return rows, columns

    def dequantize(self) -> Float32Matrix:
        """The exact float32 values of the stored 16-bit numbers."""
        return widen(self.array)

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What is stored."""
        return (self.array,)


@dataclass(frozen=True, eq=False)
class Mixed:
    """A unit in several formats. pieces: for each member of the format its lines, in order, as a matrix."""

    pieces: tuple[Quantized | PassThrough | Blocks, ...]
    shape: tuple[int, int]
    format: MixedFormat

    def dequantize(self) -> Float32Matrix:
        """float32 (out, in)."""
        cut, choice = self.format.cut(self.shape), self.format.line_choice(self.shape)
        lines = np.empty((cut.lines, cut.length), np.float32)
        for number, piece in enumerate(self.pieces):
            lines[choice == number] = piece.dequantize()
        return cut.to_matrix(lines, self.shape)

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What is stored, in a fixed order."""
        return tuple(array for piece in self.pieces for array in piece.arrays())


#: What a quantizer may give.
Stored = Quantized | Blocks | PassThrough | Mixed


class Quantizer(Protocol):
    """What every member of the catalog offers.

    A member with the attribute `takes_stored = True` also takes weights as they are stored: float16, or uint16 that
    holds bfloat16 bits; one with a method `quantize_read` (see rtn) reads them itself, in pieces. A member with
    `stateless = True` may be called by several threads at once. One with a method `bias_shift` (see compensation) also
    moves the bias of the layer, where it has one.
    """

    @property
    def name(self) -> str: ...

    def quantize(self, weight: Float32Matrix, format: Format, *, name: str = "weight", **context: Any) -> Stored:
        """Codes for a float32 (out, in) weight. `name` is for messages; `context` holds e.g. a Hessian.

        Raises InvalidModel for NaN or infinite weights, Unsupported for a format it cannot make.
        """
        ...


def dequantize(quantized: Stored) -> Float32Matrix:
    """float32 (out, in) weights that the stored numbers stand for."""
    return quantized.dequantize()


def group_spans(columns: int, format: IntFormat) -> list[tuple[int, int]]:
    """(start, stop) of every group of a row; the last may be short."""
    step = format.group or max(1, columns)
    return [(start, min(start + step, columns)) for start in range(0, columns, step)]


def check_weight(weight: Float32Matrix, name: str) -> None:
    if weight.ndim != 2 or weight.dtype != np.float32:
        raise InvalidInput(
            f"{name}: a unit must be a float32 matrix",
            expected="float32 (out, in)",
            got=f"{weight.dtype} {weight.shape}",
        )


def not_finite(name: str, bad: int, total: int) -> InvalidModel:
    return InvalidModel(
        f"{name}: the weights hold NaN or infinity",
        expected="finite weights",
        got=f"{bad} of {total} numbers are not finite",
        hint="the checkpoint is damaged or diverged in training; get a sound copy",
    )


def scale_overflow(name: str, largest: float, most: float = 65504.0) -> Unsupported:
    return Unsupported(
        f"{name}: a group's scale does not fit its type",
        expected=f"scales up to {most:.6g}",
        got=f"{largest:.4g}",
        hint="keep this unit in bf16 (add bf16 to the formats)",
    )


def pass_through(weight: Float32Matrix, format: FloatFormat, name: str) -> PassThrough:
    """The weight rounded to nearest even in `format`. Raises InvalidModel and Unsupported (fp16 overflow)."""
    check_weight(weight, name)
    finite = np.isfinite(weight)
    if not finite.all():
        raise not_finite(name, int(finite.size - np.count_nonzero(finite)), finite.size)
    if format.dtype == "BF16":
        return PassThrough(float32_to_bf16(weight), format)
    with np.errstate(over="ignore"):
        half = weight.astype(np.float16)
    if np.isinf(half).any():
        raise Unsupported(
            f"{name}: a weight is too large for fp16",
            expected="magnitudes up to 65504",
            got=f"{np.abs(weight).max():.4g}",
            hint="use bf16 instead of fp16 for this model",
        )
    return PassThrough(half, format)


def float32_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper 16 bits, rounded to nearest even (finite input)."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
