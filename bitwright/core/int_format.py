"""Integer codes with a scale (and, when asymmetric, a zero point) for every group of weights of an output row.

    payload   out rows, each a stream of in codes, padded to whole 32-bit words
    scales    one float for each row and group of `group` inputs (the last group may be short); one in all per tensor
    zeros     asymmetric only: for each group, a stream of out codes of `width` bits, padded to whole 32-bit words

A format of 2^b levels stores b bits a code. Any other number of levels L is stored in b = ceil(log2 L) bits a code, or
in radix words where that is smaller: each 32-bit word holds k = floor(32 / log2 L) codes as the digits of one number,
least significant first (BAQ's fractional widths with their true cost: 3 levels cost 1.6 bits, not log2 3 = 1.585).

`sign` formats have the two levels -scale and +scale, for which no integer is zero; an `int1` has 0 and one more.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from bitwright.core.format_base import PART_BITS, WORD_BITS, Format, Part, Shape, Storage, matrix, whole_words

#: Suffix of the name for scales that are not float16, and the dtype they are stored in.
SCALES = {"": "F16", "-bf16": "BF16", "-fp32": "F32"}
MAX_LEVELS = 256


@dataclass(frozen=True)
class IntFormat(Format):
    """`group=None` is one group an output row; `tensor`, one for the whole matrix. levels: 2^width unless given.

    centered: the `sign` formats, weight = (2 code - 1) scale.
    """

    width: int
    symmetric: bool
    group: int | None
    levels: int = 0
    scale: str = "F16"
    tensor: bool = False
    centered: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", self.levels or 1 << self.width)

    @property
    def name(self) -> str:  # type: ignore[override]
        kind = f"int{self.width}" if self.levels == 1 << self.width else f"int-l{self.levels}"
        if self.centered:
            return f"sign-{'channel' if self.group is None else f'g{self.group}'}"
        group = "tensor" if self.tensor else "channel" if self.group is None else f"g{self.group}"
        suffix = next(text for text, dtype in SCALES.items() if dtype == self.scale)
        return f"{kind}{'-sym' if self.symmetric else ''}-{group}{suffix}"

    @property
    def bits(self) -> Fraction:  # type: ignore[override]
        return Fraction(WORD_BITS, self.per_word) if self.per_word else Fraction(self.width)

    @property
    def plain(self) -> bool:
        """2^width levels, an integer zero, float16 scales, a scale a group or row: what inference engines know."""
        return self.levels == 1 << self.width and self.scale == "F16" and not self.tensor and not self.centered

    @property
    def top(self) -> int:
        """The largest code."""
        return self.levels - 1

    @property
    def middle(self) -> int:
        """The code of zero in a symmetric format."""
        return self.levels // 2

    @property
    def per_word(self) -> int:
        """Codes of a 32-bit word of radix digits; 0 for codes of `width` bits each."""
        count = radix_digits(self.levels)
        return count if count * self.width > WORD_BITS else 0

    def groups(self, inputs: int) -> int:
        """Groups in a row of `inputs` weights; a ragged tail is a group of its own."""
        return 1 if self.group is None else -(-inputs // self.group)

    def row_words(self, inputs: int) -> int:
        """32-bit words of a row of codes."""
        return -(-inputs // self.per_word) if self.per_word else -(-inputs * self.width // WORD_BITS)

    def storage(self, shape: Shape) -> Storage:
        count, out, inputs = matrix(shape)
        groups = self.groups(inputs) if inputs else 0
        scaled = (1 if out and inputs else 0) if self.tensor else out * groups
        scales, zeros, zero_words = scaled * PART_BITS[self.scale], 0, 0
        if not self.symmetric:
            rows = min(out, 1) if self.tensor else out
            zeros, zero_words = groups * rows * self.width, groups * whole_words(rows * self.width)
        stored = out * self.row_words(inputs) * WORD_BITS
        payload = int(out * inputs * self.bits)
        return Storage(count * payload, count * scales, count * zeros, count * (stored - payload + zero_words - zeros))

    def parts(self, out: int, inputs: int) -> tuple[Part, ...]:
        groups = self.groups(inputs) if inputs else 0
        rows = min(out, 1) if self.tensor else out
        parts = (
            Part(".codes", "U32", (out, self.row_words(inputs))),
            Part(".scales", self.scale, (rows, groups)),
        )
        if self.symmetric:
            return parts
        return (*parts, Part(".zeros", "U32", (groups, -(-rows * self.width // WORD_BITS))))

    def describe(self, shape: Shape = (4096, 4096)) -> dict[str, object]:
        group = "tensor" if self.tensor else self.group or "channel"
        more = {"levels": self.levels, "scales": self.scale.lower()}
        return {**super().describe(shape), "symmetric": self.symmetric, "group": group, **more}


def radix_digits(levels: int) -> int:
    """The most digits of base `levels` that one 32-bit word holds."""
    count, largest = 0, levels
    while largest <= 1 << WORD_BITS:
        count, largest = count + 1, largest * levels
    return count
