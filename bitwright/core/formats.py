"""Formats and their exact storage cost.

A format is a way to store a unit: codes of a fixed width in a dense little-endian bit stream, with a scale (and, when
asymmetric, a zero point) for every group of consecutive weights of an output row. Costs are integers of bits, exact
for any shape, and equal to what the containers write (docs/packed.md; compressed-tensors >= 0.18 uses the same
arrangement, research/07 section 2):

    payload   out rows, each a stream of in x bits, padded to whole 32-bit words
    scales    one 16-bit float for each row and group of `group` inputs (the last group may be short)
    zeros     asymmetric only: for each group, a stream of out x bits, padded to whole 32-bit words
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from bitwright.core.errors import InvalidInput, UnknownName

#: Bits of one word of every packed stream (compressed-tensors, GPTQ and MLX all use 32).
WORD_BITS = 32
#: Bits of a stored scale (float16).
SCALE_BITS = 16
#: Largest group size accepted; beyond it, `channel` says what is meant.
MAX_GROUP = 1 << 20

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Storage:
    """Exact cost of one unit in one format, in bits."""

    payload: int
    scales: int = 0
    zeros: int = 0
    padding: int = 0

    @property
    def bits(self) -> int:
        return self.payload + self.scales + self.zeros + self.padding

    @property
    def bytes(self) -> int:
        """Whole bytes; every format here ends on a byte because streams end on words."""
        return -(-self.bits // 8)


def _matrix(shape: Shape) -> tuple[int, int, int]:
    """(matrices, out, in) of a 1-D, 2-D or stacked shape."""
    if not shape or any(d < 0 for d in shape):
        raise InvalidInput("a unit needs a shape of non-negative sizes", got=repr(shape))
    if len(shape) == 1:
        return 1, 1, shape[0]
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def _words(bits: int) -> int:
    return -(-bits // WORD_BITS) * WORD_BITS


class Format(ABC):
    """What every format offers. `bits` is the code width; the true cost comes from `storage`."""

    name: str
    bits: Fraction

    @abstractmethod
    def storage(self, shape: Shape) -> Storage:
        """Exact cost of a unit of this shape ((out, in), or stacked (..., out, in)), in bits."""

    def bits_per_weight(self, shape: Shape) -> Fraction:
        """True stored bits over weights, metadata and padding included."""
        return Fraction(self.storage(shape).bits, max(1, math.prod(shape)))

    def describe(self) -> dict[str, object]:
        example = (4096, 4096)
        return {
            "name": self.name,
            "bits": float(self.bits),
            "bits_per_weight": float(self.bits_per_weight(example)),
            "shape": list(example),
        }


@dataclass(frozen=True)
class IntFormat(Format):
    """Integer codes of `width` bits with a float16 scale a group; `group=None` is one group an output row."""

    width: int
    symmetric: bool
    group: int | None

    @property
    def name(self) -> str:  # type: ignore[override]
        sym = "-sym" if self.symmetric else ""
        return f"int{self.width}{sym}-{'channel' if self.group is None else f'g{self.group}'}"

    @property
    def bits(self) -> Fraction:  # type: ignore[override]
        return Fraction(self.width)

    def groups(self, inputs: int) -> int:
        """Groups in a row of `inputs` weights; a ragged tail is a group of its own."""
        return 1 if self.group is None else -(-inputs // self.group)

    def storage(self, shape: Shape) -> Storage:
        count, out, inputs = _matrix(shape)
        payload = out * inputs * self.width
        groups = self.groups(inputs) if inputs else 0
        zeros = 0 if self.symmetric else groups * out * self.width
        padding = out * _words(inputs * self.width) - payload
        if not self.symmetric:
            padding += groups * _words(out * self.width) - zeros
        return Storage(count * payload, count * out * groups * SCALE_BITS, count * zeros, count * padding)

    def describe(self) -> dict[str, object]:
        return {**super().describe(), "symmetric": self.symmetric, "group": self.group or "channel"}


@dataclass(frozen=True)
class FloatFormat(Format):
    """Pass-through: the weights themselves as `dtype` (safetensors spelling), no scales."""

    name: str
    width: int
    dtype: str

    @property
    def bits(self) -> Fraction:  # type: ignore[override]
        return Fraction(self.width)

    def storage(self, shape: Shape) -> Storage:
        count, out, inputs = _matrix(shape)
        return Storage(count * out * inputs * self.width)


FLOAT_FORMATS = {f.name: f for f in (FloatFormat("bf16", 16, "BF16"), FloatFormat("fp16", 16, "F16"))}
_INT_NAME = re.compile(r"int([1-8])(-sym)?-(?:g([1-9][0-9]*)|channel)")
GRAMMAR = "int{1..8}[-sym]-g{N}, int{1..8}[-sym]-channel, bf16 or fp16 (for example int4-g64, int3-sym-g128)"

#: The menu when nobody names one: research/08 measured these six widths at group 64 (asymmetric round to nearest).
DEFAULT_WIDTHS = (2, 3, 4, 5, 6, 8)
DEFAULT_GROUP = 64


@lru_cache(maxsize=4096)
def parse_format(name: str) -> Format:
    """The format of that name. Raises UnknownName with the grammar."""
    if name in FLOAT_FORMATS:
        return FLOAT_FORMATS[name]
    match = _INT_NAME.fullmatch(name)
    if match is None or (match[3] is not None and int(match[3]) > MAX_GROUP):
        raise UnknownName("there is no format of that name", expected=GRAMMAR, got=repr(name)[:80])
    return IntFormat(int(match[1]), match[2] is not None, None if match[3] is None else int(match[3]))


def parse_formats(names: str | tuple[str, ...] | list[str]) -> tuple[Format, ...]:
    """Formats from a comma-separated text or a list, in the given order, without doubles."""
    texts = [part.strip() for part in names.split(",")] if isinstance(names, str) else list(names)
    texts = [text for text in texts if text]
    if not texts:
        raise UnknownName("no format was named", expected=GRAMMAR, got="an empty list")
    return tuple(parse_format(text) for text in dict.fromkeys(texts))


def default_formats(
    *, symmetric: bool = False, group: int = DEFAULT_GROUP, passthrough: str | None = None
) -> tuple[str, ...]:
    """Names of the default menu, narrowest first; `passthrough` adds the model's own 16-bit format at the end."""
    sym = "-sym" if symmetric else ""
    names = [f"int{width}{sym}-g{group}" for width in DEFAULT_WIDTHS]
    return (*names, passthrough) if passthrough else tuple(names)


def listed_formats() -> tuple[Format, ...]:
    """A representative list for catalogs and help: every width at the default group, and the pass-through formats."""
    ints = [IntFormat(b, s, g) for s in (False, True) for g in (32, DEFAULT_GROUP, 128, None) for b in range(1, 9)]
    return (*ints, *FLOAT_FORMATS.values())
