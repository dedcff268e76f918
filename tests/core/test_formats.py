"""Storage costs equal what a straightforward packer would write, bit by bit."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import BitwrightError, InvalidInput, UnknownName
from bitwright.core.formats import (
    FLOAT_FORMATS,
    IntFormat,
    default_formats,
    listed_formats,
    parse_format,
    parse_formats,
)
from tests.strategies import format_names, shapes


def counted_bits(name: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Brute force: walk over every weight, row and group and count what has to be stored."""
    matrices = [shape[-2:]] * math.prod(shape[:-2])
    fmt = parse_format(name)
    total = {"payload": 0, "scales": 0, "zeros": 0, "words": 0}
    for out, inputs in matrices:
        if not isinstance(fmt, IntFormat):
            total["payload"] += 16 * out * inputs
            total["words"] += 16 * out * inputs
            continue
        group = fmt.group or inputs
        starts = list(range(0, inputs, group))
        for _ in range(out):
            row = sum(fmt.width for _ in range(inputs))
            total["payload"] += row
            total["words"] += math.ceil(row / 32) * 32
            total["scales"] += 16 * len(starts)
        if not fmt.symmetric:
            for _ in starts:
                column = sum(fmt.width for _ in range(out))
                total["zeros"] += column
                total["words"] += math.ceil(column / 32) * 32
    return total


@given(format_names(), shapes(stacked=True))
def test_storage_equals_brute_force_counting(name: str, shape: tuple[int, ...]) -> None:
    counted = counted_bits(name, shape)
    storage = parse_format(name).storage(shape)
    assert (storage.payload, storage.scales, storage.zeros) == (counted["payload"], counted["scales"], counted["zeros"])
    assert storage.bits == counted["words"] + counted["scales"]
    assert storage.bytes * 8 >= storage.bits > storage.bytes * 8 - 8


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
        assert text not in FLOAT_FORMATS


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
