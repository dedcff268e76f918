"""Formats by name, and their exact storage cost.

A format is a way to store a unit. Costs are integers of bits, exact for any shape, and equal to what the containers
write (docs/packed.md). The families: `int_format` (codes in a dense stream, a scale a group), `block_format` (ggml's
types and small floats: blocks of bytes), `grid_format` (HIGGS: rotated weights as points of a grid), and 16-bit
pass-through (`format_base`).
"""

from __future__ import annotations

import re
from functools import lru_cache

from bitwright.core.block_format import FLOAT_BLOCKS, GGML_FORMATS, NF4_GROUP, BlockFormat, nf4
from bitwright.core.errors import UnknownName
from bitwright.core.format_base import FLOAT_FORMATS, WORD_BITS, FloatFormat, Format, Part, Shape, Storage
from bitwright.core.grid_format import GRID_FORMATS, GridFormat, parse_grid
from bitwright.core.int_format import MAX_LEVELS, SCALES, IntFormat
from bitwright.core.mixed_format import MixedFormat, parse_mixed

__all__ = [
    "DEFAULT_GROUP", "DEFAULT_WIDTHS", "FLOAT_FORMATS", "GGML_FORMATS", "GRAMMAR", "GRID_FORMATS", "MAX_GROUP", "NAMED",
    "WORD_BITS", "BlockFormat", "FloatFormat", "Format", "GridFormat", "IntFormat", "MixedFormat", "Part", "Shape",
    "Storage", "default_formats", "listed_formats", "parse_format", "parse_formats",
]  # fmt: skip

#: Largest group size accepted; beyond it, `channel` says what is meant.
MAX_GROUP = 1 << 20

#: Formats that have one name each.
NAMED: dict[str, Format] = {**FLOAT_BLOCKS, **GGML_FORMATS, **GRID_FORMATS, **FLOAT_FORMATS}
_NF4_NAME = re.compile(r"nf4-g([1-9][0-9]{0,6})")
_SIGN_NAME = re.compile(r"sign-(?:g([1-9][0-9]{0,6})|channel)")
_INT_NAME = re.compile(
    r"int(?:([1-8])|-l([1-9][0-9]*))(-sym)?-(?:g([1-9][0-9]*)|channel|(tensor))(-bf16|-fp32)?",
)
GRAMMAR = (
    "int{1..8}[-sym]-{g{N}|channel|tensor}[-bf16|-fp32] (for example int4-g64, int3-sym-g128; -bf16, -fp32: type of "
    "the scales), int-l{LEVELS}... for 3 to 255 levels (int-l6-g128), "
    "sign-{g{N}|channel} for two levels +-scale, nf4-g{N}, "
    "higgs-p1-n{4..256}[-g{N}], higgs-p2-n{8..4096}[-g{N}], higgs-p3-n{64..1024}[-g{N}], higgs-p4-n{256..2048}[-g{N}] "
    "(n a power of two), " + ", ".join(name for name in NAMED if name not in GRID_FORMATS)
)

#: The menu when nobody names one: research/08 measured these six widths at group 64 (asymmetric round to nearest).
DEFAULT_WIDTHS = (2, 3, 4, 5, 6, 8)
DEFAULT_GROUP = 64


def parse_format(name: str) -> Format:
    """The format of that name. Raises UnknownName with the grammar, InvalidPlan for a choice that its parts exclude."""
    return parse_mixed(name, _parse_plain) if "(" in name else _parse_plain(name)


@lru_cache(maxsize=4096)
def _parse_plain(name: str) -> Format:
    if name in NAMED:
        return NAMED[name]
    found: Format | None = _parse_int(name)
    match = _NF4_NAME.fullmatch(name)
    if match is not None and int(match[1]) != NF4_GROUP and int(match[1]) <= MAX_GROUP:
        found = nf4(int(match[1]))
    found = found or parse_grid(name)
    match = _SIGN_NAME.fullmatch(name)
    if match is not None and int(match[1] or 1) <= MAX_GROUP:
        found = IntFormat(1, True, int(match[1]) if match[1] else None, centered=True)
    if found is None:
        raise UnknownName("there is no format of that name", expected=GRAMMAR, got=repr(name)[:80])
    return found


def _parse_int(name: str) -> IntFormat | None:
    match = _INT_NAME.fullmatch(name)
    if match is None or len(name) > 40:
        return None
    width, levels, symmetric, group, tensor, scale = match.groups()
    if group is not None and int(group) > MAX_GROUP:
        return None
    count = int(levels or 1 << int(width))
    # A power of two has a plain name; one level is no format.
    if levels is not None and (not 3 <= count <= MAX_LEVELS or count & (count - 1) == 0):
        return None
    return IntFormat(
        int(width or (count - 1).bit_length()),
        symmetric is not None,
        None if group is None else int(group),
        count,
        SCALES[scale or ""],
        tensor is not None,
    )


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
    """A representative list for catalogs and help: every width at the usual groups, and the formats of one name."""
    ints = [IntFormat(b, s, g) for s in (False, True) for g in (32, DEFAULT_GROUP, 128, None) for b in range(1, 9)]
    return (*ints, *NAMED.values())
