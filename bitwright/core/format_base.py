"""What every format is: a name, a code width, the tensors it stores, and so its exact cost."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

from bitwright.core.errors import InvalidInput

#: Bits of one word of every packed stream (compressed-tensors, GPTQ and MLX all use 32).
WORD_BITS = 32
#: Bits of an element by safetensors dtype, for the tensors that formats store.
PART_BITS = {"U8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F16": 16, "BF16": 16, "U32": 32, "F32": 32}

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


@dataclass(frozen=True)
class Part:
    """A tensor that stores a part of a unit: its name is the unit's and `suffix`; dtype as safetensors spells it."""

    suffix: str
    dtype: str
    shape: Shape

    @property
    def bits(self) -> int:
        return math.prod(self.shape) * PART_BITS[self.dtype]


def matrix(shape: Shape) -> tuple[int, int, int]:
    """(matrices, out, in) of a 1-D, 2-D or stacked shape. Raises InvalidInput."""
    if not shape or any(d < 0 for d in shape):
        raise InvalidInput("a unit needs a shape of non-negative sizes", got=repr(shape))
    if len(shape) == 1:
        return 1, 1, shape[0]
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def whole_words(bits: int) -> int:
    """Bits rounded up to whole words."""
    return -(-bits // WORD_BITS) * WORD_BITS


class Format(ABC):
    """What every format offers. `bits` is the code width; the true cost comes from `storage`."""

    name: str
    bits: Fraction

    @property
    def label(self) -> str:
        """The name, short enough for people and manifests."""
        return self.name

    @abstractmethod
    def storage(self, shape: Shape) -> Storage:
        """Exact cost of a unit of this shape ((out, in), or stacked (..., out, in)), in bits."""

    @abstractmethod
    def parts(self, out: int, inputs: int) -> tuple[Part, ...]:
        """The tensors of one (out, in) matrix in the `packed` container; together exactly `storage`."""

    def bits_per_weight(self, shape: Shape) -> Fraction:
        """True stored bits over weights, metadata and padding included."""
        return Fraction(self.storage(shape).bits, max(1, math.prod(shape)))

    def describe(self, shape: Shape = (4096, 4096)) -> dict[str, object]:
        """For catalogs: what the format costs on a matrix of this shape."""
        return {
            "name": self.name,
            "bits": float(self.bits),
            "bits_per_weight": float(self.bits_per_weight(shape)),
            "shape": list(shape),
        }


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
        count, out, inputs = matrix(shape)
        return Storage(count * out * inputs * self.width)

    def parts(self, out: int, inputs: int) -> tuple[Part, ...]:
        return (Part("", self.dtype, (out, inputs)),)


FLOAT_FORMATS = {f.name: f for f in (FloatFormat("bf16", 16, "BF16"), FloatFormat("fp16", 16, "F16"))}
