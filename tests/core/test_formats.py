"""Storage costs equal what a straightforward packer would write, bit by bit."""

from __future__ import annotations

import math
from fractions import Fraction

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import BitwrightError, InvalidInput, UnknownName
from bitwright.core.formats import (
    GGML_FORMATS,
    NAMED,
    BlockFormat,
    GridFormat,
    IntFormat,
    default_formats,
    listed_formats,
    parse_format,
    parse_formats,
)
from tests.strategies import format_names, shapes


def counted_bits(name: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Brute force: walk over every weight, row, group and block and count what has to be stored."""
    total = {"payload": 0, "scales": 0, "zeros": 0, "all": 0}
    for out, inputs in [shape[-2:]] * math.prod(shape[:-2]):
        fmt = parse_format(name)
        if isinstance(fmt, IntFormat):
            count_int(fmt, out, inputs, total)
        elif isinstance(fmt, GridFormat):
            count_grid(fmt, out, inputs, total)
        elif isinstance(fmt, BlockFormat):
            count_blocks(fmt, out, inputs, total)
        else:
            total["payload"] += 16 * out * inputs
            total["all"] += 16 * out * inputs
    return total


def count_int(fmt: IntFormat, out: int, inputs: int, total: dict[str, int]) -> None:
    starts = list(range(0, inputs, fmt.group or inputs))
    digits = max(k for k in range(33) if fmt.levels**k <= 2**32)
    radix = digits * fmt.width > 32
    word_of = [i // digits if radix else (i + 1) * fmt.width - 1 for i in range(inputs)]
    words = word_of[-1] + 1 if radix else math.ceil((word_of[-1] + 1) / 32)
    scale_bits = {"F16": 16, "BF16": 16, "F32": 32}[fmt.scale]
    rows = 1 if fmt.tensor else out
    scales = sum(scale_bits for _ in range(rows) for _ in starts)
    zeros = 0 if fmt.symmetric else sum(fmt.width for _ in range(rows) for _ in starts)
    zero_words = 0 if fmt.symmetric else sum(math.ceil(rows * fmt.width / 32) for _ in starts)
    total["payload"] += math.floor(out * inputs * (Fraction(32, digits) if radix else fmt.width))
    total["scales"] += scales
    total["zeros"] += zeros
    total["all"] += out * words * 32 + scales + zero_words * 32


def count_blocks(fmt: BlockFormat, out: int, inputs: int, total: dict[str, int]) -> None:
    blocks = [min(fmt.block, inputs - start) for _ in range(out) for start in range(0, inputs, fmt.block)]
    beside = 32 * {"": 0, "row": out, "tensor": 1}[fmt.outer]
    total["payload"] += sum(fmt.code_bits * size for size in blocks)
    total["scales"] += sum(8 * fmt.block_bytes - fmt.block * fmt.code_bits for _ in blocks) + beside
    total["all"] += sum(8 * fmt.block_bytes for _ in blocks) + beside


def count_grid(fmt: GridFormat, out: int, inputs: int, total: dict[str, int]) -> None:
    """Code by code: a code for every started run of `dimension` weights of a group, whole bytes a group."""
    for start in list(range(0, inputs, fmt.block)) * out:
        bits = 0
        for _ in range(start, min(start + fmt.block, inputs), fmt.dimension):
            bits += math.log2(1 << fmt.code_bits)
        total["payload"] += int(bits)
        total["scales"] += 16
        total["all"] += 16 + 8 * math.ceil(bits / 8)


@given(format_names(), shapes(stacked=True))
def test_storage_equals_brute_force_counting(name: str, shape: tuple[int, ...]) -> None:
    counted = counted_bits(name, shape)
    storage = parse_format(name).storage(shape)
    assert (storage.payload, storage.scales, storage.zeros) == (counted["payload"], counted["scales"], counted["zeros"])
    assert storage.bits == counted["all"]
    assert storage.bytes * 8 >= storage.bits > storage.bytes * 8 - 8


@given(format_names(), shapes())
def test_the_parts_are_the_storage(name: str, shape: tuple[int, ...]) -> None:
    fmt = parse_format(name)
    assert sum(part.bits for part in fmt.parts(*shape)) == fmt.storage(shape).bits
    assert len({part.suffix for part in fmt.parts(*shape)}) == len(fmt.parts(*shape))


@pytest.mark.parametrize("name", sorted(GGML_FORMATS))
def test_ggml_blocks_have_the_sizes_that_ggml_says(name: str) -> None:
    fmt = GGML_FORMATS[name]
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]]
    assert (fmt.block, fmt.block_bytes) == sizes


@pytest.mark.parametrize(("levels", "bits"), [(3, 1.6), (5, 32 / 13), (6, 32 / 12), (7, 32 / 11), (9, 3.2), (24, 5.0)])
def test_levels_cost_what_their_words_hold(levels: int, bits: float) -> None:
    """BAQ's fractional widths are charged what is stored, not log2 of the levels."""
    assert float(parse_format(f"int-l{levels}-g64").bits) == pytest.approx(bits, abs=0)
    assert float(parse_format(f"int-l{levels}-g64").bits) >= math.log2(levels)


@given(format_names(), shapes())
def test_a_stack_costs_as_much_as_its_matrices(name: str, shape: tuple[int, ...]) -> None:
    fmt = parse_format(name)
    assert fmt.storage((3, *shape)).bits == 3 * fmt.storage(shape).bits


@given(format_names(), shapes())
def test_bits_per_weight_is_exact(name: str, shape: tuple[int, ...]) -> None:
    fmt = parse_format(name)
    per_weight = fmt.bits_per_weight(shape)
    assert isinstance(per_weight, Fraction)
    assert per_weight * math.prod(shape) == fmt.storage(shape).bits


@given(format_names())
def test_a_name_is_the_name_of_its_format(name: str) -> None:
    assert parse_format(name).name == name


def test_known_costs_by_hand() -> None:
    # 4 x 64 weights: 4 rows of 8 words; one scale a row; one zero a row of 4 bits, padded to a word.
    assert parse_format("int4-g64").storage((4, 64)).bits == 4 * 256 + 4 * 16 + 32
    assert parse_format("int3-sym-g128").storage((1, 130)).bits == 13 * 32 + 2 * 16
    assert parse_format("bf16").storage((5, 7)).bytes == 70


@pytest.mark.parametrize(
    "name",
    [
        "",
        "int0-g64",
        "int9-g64",
        "int4",
        "int4-g0",
        "int4-g-1",
        "int4-g064",
        "INT4-G64",
        "int4-g64 ",
        "int4-g9999999",
        "q",
        "q4_K",
        "higgs-p1-n2",
        "higgs-p1-n24",
        "higgs-p3-n8",
        "higgs-p2-n8192",
        "higgs-p2-n64-g1024",
        "higgs-p2-n64-g48",
        "higgs-p1-n16-g8",
        "int-l2-g64",
        "int-l8-g64",
        "int-l257-g64",
        "int-l06-g64",
        "int4-tensor-fp16",
        "int4-g64-f32",
    ],
)
def test_names_outside_the_grammar_are_refused_with_the_grammar(name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        parse_format(name)
    assert "int4-g64" in (caught.value.expected or "")


@given(st.text(max_size=30))
def test_any_text_parses_or_raises_a_typed_error(text: str) -> None:
    try:
        assert parse_format(text).name == text
    except BitwrightError:
        assert text not in NAMED


def test_lists_keep_their_order_and_drop_doubles() -> None:
    found = parse_formats(" int4-g64, int2-g64,int4-g64 ,")
    assert [f.name for f in found] == ["int4-g64", "int2-g64"]
    with pytest.raises(UnknownName):
        parse_formats(" , ")


@pytest.mark.parametrize("shape", [(), (-1, 4)])
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        parse_format("int4-g64").storage(shape)


def test_default_menu_is_valid_and_narrowest_first() -> None:
    for options in ({}, {"symmetric": True}, {"group": 32, "passthrough": "bf16"}):
        menu = parse_formats(default_formats(**options))  # type: ignore[arg-type]
        costs = [f.bits_per_weight((256, 256)) for f in menu]
        assert costs == sorted(costs)


def test_listed_formats_have_unique_names_and_descriptions() -> None:
    listed = listed_formats()
    assert len({f.name for f in listed}) == len(listed)
    for fmt in listed:
        assert parse_format(fmt.name) == fmt
        assert fmt.describe()["name"] == fmt.name
