"""One matrix in several formats: every part of it (an output row, a block of rows, a column ...) has its own.

A granularity says how a matrix is cut. It is read as `lines` of equal length, and a part is one line or a block of
consecutive lines; a line in format f is stored exactly as a row of a matrix in format f is:

    row, row:B      lines are the output rows; a part is a row, or B consecutive rows (the last part may be short)
    column          lines are the columns: groups run along the outputs
    column:B        a part is B consecutive columns, read row by row; groups of B (or of a divisor of B) stay in one row
    group           a part is one group of weights of one row

The name spells the whole choice, one digit a part, for example `row(int2-g64,int3-g64)@0110`; `label` is the name
without the digits. Cost (docs/packed.md section 4): 3 bits a part for its width, padded to whole words, and for every
line what one row costs, zero points padded to whole bytes. It is a sum over parts, so that solvers see true bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.core.errors import InvalidPlan, UnknownName, Unsupported
from bitwright.core.format_base import PART_BITS, FloatFormat, Format, Part, Shape, Storage, matrix, whole_words
from bitwright.core.int_format import IntFormat

#: Bits of a part's index among the members: at most eight formats share a matrix.
INDEX_BITS = 3
MAX_MEMBERS = 1 << INDEX_BITS
_GRANULARITY = re.compile(r"(row|column|group)(?::([1-9][0-9]{0,5}))?")
_NAME = re.compile(r"((?:row|column|group)(?::[1-9][0-9]{0,5})?)\(([^()]+)\)(?:@([0-7]+))?")
GRANULARITIES = "tensor, expert, row, row:B, column, column:B or group"
#: Granularities in requests and recipes; finer than a tensor from `row` on.
PATTERN = r"^(tensor|expert|group|(row|column)(:[1-9][0-9]{0,5})?)$"


@dataclass(frozen=True)
class Cut:
    """How a granularity reads one (out, in) matrix. block: lines a part."""

    granularity: str
    lines: int
    length: int
    block: int

    @property
    def parts(self) -> int:
        return -(-self.lines // self.block)

    def part_lines(self) -> NDArray[np.int64]:
        """int64 (parts,): lines of each part."""
        counts = np.full(self.parts, self.block, np.int64)
        if self.parts:
            counts[-1] = self.lines - (self.parts - 1) * self.block
        return counts

    def to_lines(self, array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        """(..., out, in) as (..., lines, length). shape: the matrix's; `array` may hold one number a group instead."""
        kind, _, size = self.granularity.partition(":")
        lead = array.shape[:-2]
        if kind == "row":
            return array
        if kind == "column" and not size:
            return array.swapaxes(-1, -2)
        blocks = shape[1] // (self.length // shape[0] if kind == "column" else self.length)
        cells = array.reshape(*lead, array.shape[-2], blocks, -1)
        if kind == "column":
            return cells.swapaxes(-2, -3).reshape(*lead, blocks, -1)
        return cells.reshape(*lead, array.shape[-2] * blocks, -1)

    def to_matrix(self, lines: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        """The inverse of `to_lines` for whole matrices."""
        kind, _, size = self.granularity.partition(":")
        if kind == "column":
            turned = lines.reshape(self.lines, shape[0], -1).swapaxes(0, 1) if size else lines.T
            return np.ascontiguousarray(turned.reshape(shape))
        return np.ascontiguousarray(lines.reshape(shape))


def is_finer(granularity: str) -> bool:
    """Whether units are parts of tensors."""
    return granularity not in ("tensor", "expert")


def cut(granularity: str, shape: Shape, members: tuple[Format, ...]) -> Cut:
    """How this matrix is cut. Raises Unsupported where the granularity does not fit the matrix or the formats."""
    match = _GRANULARITY.fullmatch(granularity)
    if match is None or (match[1] == "group" and match[2]):
        raise Unsupported("there is no such granularity", expected=GRANULARITIES, got=repr(granularity)[:40])
    count, out, inputs = matrix(shape)
    out, kind, size = count * out, match[1], int(match[2] or 1)
    for member in members:
        _check_member(granularity, member)
    if kind == "row":
        return Cut(granularity, out, inputs, min(size, max(1, out)))
    if not out * inputs:
        raise Unsupported("an empty matrix has no columns or groups to cut", got=f"shape {shape}")
    if kind == "column" and not match[2]:
        return Cut(granularity, inputs, out, 1)
    groups = {member.group for member in members if isinstance(member, IntFormat)}
    span = size if kind == "column" else min((g for g in groups if g), default=0)
    fits = all(group and (span % group == 0 if kind == "column" else group == span) for group in groups)
    if not fits or span < 1 or inputs % span:
        raise Unsupported(
            f"the granularity {granularity} does not fit this matrix",
            expected=f"groups that divide {span or 'the block'} and blocks that divide the {inputs} inputs",
            got=f"shape {shape}, formats {', '.join(member.name for member in members)}"[:200],
            hint="choose group sizes that divide, or plan by row",
        )
    return Cut(granularity, inputs // span, out * span, 1) if kind == "column" else (
        Cut(granularity, out * (inputs // span), span, 1)
    )  # fmt: skip


def _check_member(granularity: str, member: Format) -> None:
    fine = isinstance(member, IntFormat) and not member.tensor
    if granularity.startswith("row"):
        fine = fine or isinstance(member, FloatFormat)
    if not fine:
        raise Unsupported(
            f"parts of a matrix cannot be stored as {member.label}",
            expected="integer formats with groups or one scale a row; bf16 and fp16 by row",
            got=f"{member.label} with granularity {granularity}",
            hint="plan by tensor, or leave the format out",
        )


def line_bits(member: Format, length: int) -> int:
    """Exact bits of a line of `length` weights, padding included."""
    return sum(part.bits for part in line_parts(member, 1, length))


def line_parts(member: Format, lines: int, length: int) -> tuple[Part, ...]:
    """The tensors of `lines` lines: those of a matrix, but zero points lie by line, padded to whole bytes."""
    parts = member.parts(lines, length)
    if not isinstance(member, IntFormat) or member.symmetric:
        return parts
    return (*parts[:-1], Part(".zeros", "U8", (lines, -(-member.groups(length) * member.width // 8))))


@dataclass(frozen=True)
class MixedFormat(Format):
    """See the module. choice: the member of each part; empty = not known (a name without digits)."""

    granularity: str
    members: tuple[Format, ...]
    choice: bytes = b""

    @property
    def label(self) -> str:
        return f"{self.granularity}({','.join(member.name for member in self.members)})"

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.label}@{self.choice.translate(_TO_DIGITS).decode()}" if self.choice else self.label

    @property
    def bits(self) -> Fraction:  # type: ignore[override]
        """Code width, averaged over parts."""
        counts = np.bincount(np.frombuffer(self.choice, np.uint8), minlength=len(self.members)).tolist()
        total = sum(counts)
        widths = [member.bits for member in self.members]
        return sum((n * w for n, w in zip(counts, widths, strict=True)), Fraction(0)) / total if total else min(widths)

    def cut(self, shape: Shape) -> Cut:
        """How the matrix is read. Raises InvalidPlan when the choice is of another number of parts."""
        found = cut(self.granularity, shape, self.members)
        if len(self.choice) != found.parts:
            raise InvalidPlan(
                f"{self.label} does not fit this matrix",
                expected=f"{found.parts} parts for shape {shape}",
                got=f"{len(self.choice)} parts",
            )
        return found

    def line_choice(self, shape: Shape) -> NDArray[np.uint8]:
        """uint8 (lines,): the member of each line."""
        return np.repeat(np.frombuffer(self.choice, np.uint8), self.cut(shape).part_lines())

    def storage(self, shape: Shape) -> Storage:
        found = self.cut(shape)
        counts = np.bincount(self.line_choice(shape), minlength=len(self.members)).tolist()
        payload = sum(int(n * found.length * m.bits) for n, m in zip(counts, self.members, strict=True))
        total = sum(n * line_bits(m, found.length) for n, m in zip(counts, self.members, strict=True))
        return Storage(payload, scales=index_bits(found.parts), padding=total - payload)

    def parts(self, out: int, inputs: int) -> tuple[Part, ...]:
        found = self.cut((out, inputs))
        counts = np.bincount(self.line_choice((out, inputs)), minlength=len(self.members)).tolist()
        pieces = [
            Part(f".{number}{part.suffix}", part.dtype, part.shape)
            for number, (member, lines) in enumerate(zip(self.members, counts, strict=True))
            for part in line_parts(member, lines, found.length)
            if lines
        ]
        return (Part(".parts", "U32", (index_bits(found.parts) // PART_BITS["U32"],)), *pieces)

    def chosen(self, choice: bytes) -> MixedFormat:
        """The same members with this choice. Raises InvalidPlan for a part of a member that is not there."""
        if choice and max(choice) >= len(self.members):
            raise InvalidPlan(f"a part has no format of {self.label}", got=f"number {max(choice)}")
        return MixedFormat(self.granularity, self.members, choice)

    def fullest(self, shape: Shape) -> MixedFormat:
        """A choice that uses as many members as this matrix has parts for, the costliest one most."""
        found = cut(self.granularity, shape, self.members)
        costliest = max(range(len(self.members)), key=lambda j: line_bits(self.members[j], found.length))
        choice = [*range(len(self.members)), *(found.parts - len(self.members)) * [costliest]]
        return self.chosen(bytes(choice[: found.parts]))

    def describe(self, shape: Shape = (4096, 4096)) -> dict[str, object]:
        return {"name": self.label, "bits": float(self.bits), "granularity": self.granularity}


def index_bits(parts: int) -> int:
    """Bits that say every part's member, padded to whole words."""
    return whole_words(parts * INDEX_BITS)


def part_bytes(granularity: str, shape: Shape, members: tuple[Format, ...]) -> NDArray[np.int64]:
    """int64 (parts, members): exact bytes of each part; the first part also pays for the matrix's index."""
    found = cut(granularity, shape, members)
    line = np.array([line_bits(member, found.length) // 8 for member in members], np.int64)
    costs: NDArray[np.int64] = found.part_lines()[:, None] * line[None, :]
    costs[:1] += index_bits(found.parts) // 8
    return costs


def row_names(units: Sequence[str], granularity: str, counts: Sequence[int]) -> tuple[str, ...]:
    """Names of what gets a choice: the units', or `<unit>#<number>` of their parts."""
    if not is_finer(granularity):
        return tuple(units)
    return tuple(f"{name}#{part}" for name, count in zip(units, counts, strict=True) for part in range(count))


def expand(unit: str, format: Format) -> list[tuple[str, str]]:
    """(name, format) of everything that got a choice of its own: the unit, or its parts."""
    if not isinstance(format, MixedFormat):
        return [(unit, format.name)]
    members = [member.name for member in format.members]
    return [(f"{unit}#{part}", members[index]) for part, index in enumerate(format.choice)]


def choices(name: str) -> int:
    """How many choices a format's name spells out: its parts, or one."""
    return max(1, len(name.partition("@")[2]))


_TO_DIGITS = bytes.maketrans(bytes(range(MAX_MEMBERS)), b"01234567")
_FROM_DIGITS = bytes.maketrans(b"01234567", bytes(range(MAX_MEMBERS)))


def mixed(granularity: str, menu: tuple[Format, ...], choice: NDArray[Any]) -> MixedFormat:
    """The format of one matrix from a choice among the menu; members that no part takes are left out."""
    used = np.flatnonzero(np.bincount(choice, minlength=len(menu)))
    rank = np.zeros(len(menu), np.uint8)
    rank[used] = np.arange(len(used))
    return MixedFormat(granularity, tuple(menu[j] for j in used.tolist()), rank[choice].tobytes())


def parse_mixed(name: str, parse: Callable[[str], Format]) -> MixedFormat:
    """The format of that name; `parse` reads its members. Raises UnknownName, InvalidPlan."""
    match = _NAME.fullmatch(name)
    members = tuple(parse(text) for text in match[2].split(",")) if match else ()
    if match is None or not 1 <= len(set(members)) == len(members) <= MAX_MEMBERS:
        raise UnknownName(
            "there is no format of that name",
            expected=f"GRANULARITY(FORMAT,...)@DIGITS with at most {MAX_MEMBERS} different formats",
            got=repr(name)[:80],
        )
    choice = (match[3] or "").encode().translate(_FROM_DIGITS)
    return MixedFormat(match[1], members).chosen(choice)
