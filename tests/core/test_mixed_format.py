"""Formats of parts of a matrix: exact sums, names that say everything, cuts that can be undone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.errors import InvalidPlan, UnknownName, Unsupported
from bitwright.core.formats import MixedFormat, parse_format
from bitwright.core.mixed_format import cut, mixed, part_bytes
from tests.strategies import MixedCase, mixed_cases


@given(mixed_cases())
def test_the_bytes_of_a_matrix_are_the_sum_over_its_parts(
    case: MixedCase,
) -> None:
    granularity, shape, menu, choice = case
    costs = part_bytes(granularity, shape, menu)
    format = mixed(granularity, menu, np.array(choice))
    assert costs.shape == (len(choice), len(menu))
    assert format.storage(shape).bytes == sum(int(costs[p, j]) for p, j in enumerate(choice))
    assert format.storage(shape).bits == sum(part.bits for part in format.parts(*shape))


@given(mixed_cases())
def test_the_name_says_the_whole_choice(case: MixedCase) -> None:
    granularity, shape, menu, choice = case
    format = mixed(granularity, menu, np.array(choice))
    assert parse_format(format.name) == format
    assert [format.members[i] for i in format.choice] == [menu[j] for j in choice]
    lines = format.cut(shape).part_lines()
    assert int(lines.sum()) == format.cut(shape).lines
    assert min(float(m.bits) for m in menu) <= float(format.bits) <= max(float(m.bits) for m in menu)


@given(mixed_cases(), st.integers(0, 2**32 - 1))
def test_a_cut_can_be_undone(case: MixedCase, seed: int) -> None:
    granularity, shape, menu, _ = case
    weight = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    found = cut(granularity, shape, menu)
    lines = found.to_lines(weight, shape)
    assert lines.shape == (found.lines, found.length)
    assert np.array_equal(found.to_matrix(lines, shape), weight)


def test_lines_are_what_the_specification_says() -> None:
    weight = np.arange(24).reshape(2, 12)
    menu = (parse_format("int2-g4"),)

    def lines(granularity: str) -> list[list[int]]:
        found: list[list[int]] = cut(granularity, (2, 12), menu).to_lines(weight, (2, 12)).tolist()
        return found

    assert lines("row") == lines("row:2") == weight.tolist()
    assert lines("column") == weight.T.tolist()
    assert lines("column:4")[1] == [4, 5, 6, 7, 16, 17, 18, 19]
    assert lines("group")[1:4] == [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert cut("row:3", (7, 12), menu).part_lines().tolist() == [3, 3, 1]


@pytest.mark.parametrize(
    ("granularity", "names"),
    [
        ("column:5", ["int2-g4"]), ("column:4", ["int2-channel"]), ("group", ["int2-g4", "int3-g2"]),
        ("group", ["bf16"]), ("group", ["int2-g5"]), ("group", ["int2-channel"]), ("column", ["fp16"]),
        ("row", ["q4_k"]), ("row", ["int4-tensor"]), ("cell", ["int2-g4"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_a_typed_error(granularity: str, names: list[str]) -> None:
    with pytest.raises(Unsupported):
        cut(granularity, (6, 12), tuple(parse_format(name) for name in names))


NINE = ",".join([*(f"int{b}-g4" for b in range(1, 9)), "bf16"])


@pytest.mark.parametrize(
    "name",
    [
        "row()", "row(int2-g4)@", "row(int2-g4,int2-g4)@01", "rows(int2-g4)@0", "row(int9-g4)@0", "row(int2-g4)@8",
        f"row({NINE})@0",
    ],
)  # fmt: skip
def test_a_wrong_name_is_no_format(name: str) -> None:
    with pytest.raises(UnknownName):
        parse_format(name)


def test_a_choice_must_fit_its_members_and_its_matrix() -> None:
    with pytest.raises(InvalidPlan, match="no format"):
        parse_format("row(int2-g4,int3-g4)@0123")
    with pytest.raises(InvalidPlan, match="parts"):
        parse_format("row(int2-g4,int3-g4)@0101").storage((5, 8))


def test_the_label_is_short_whatever_the_number_of_parts() -> None:
    format = parse_format("row(int2-g4,int3-g4)@" + "01" * 5000)
    assert isinstance(format, MixedFormat)
    assert format.label == "row(int2-g4,int3-g4)"
    assert format.bits == 2.5
