"""Budgets are exact, and nothing but a positive number with a unit is taken."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.core.budget import format_bytes, parse_budget
from bitwright.core.errors import InvalidBudget
from tests.strategies import budgets


@given(budgets())
def test_every_budget_text_of_the_grammar_parses(text: str) -> None:
    budget = parse_budget(text)
    assert budget.value > 0
    assert budget.whole_file is not text.endswith("bpw")


@given(st.text(max_size=20))
def test_any_text_parses_or_is_refused_with_the_grammar(text: str) -> None:
    try:
        parse_budget(text)
    except InvalidBudget as error:
        explained = error.expected is not None and error.got is not None
        if not explained:
            pytest.fail("the error does not say what was expected and what came")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1B", 1),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("4.2GiB", Fraction("4.2") * 2**30),
        ("120MB", 120 * 10**6),
        ("1 TiB", 2**40),
    ],
)
def test_byte_units(text: str, value: Fraction) -> None:
    assert parse_budget(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        "0bpw",
        "0B",
        "-1bpw",
        "65bpw",
        "3.5",
        "bpw",
        "3,5bpw",
        "nanbpw",
        "infB",
        "1e3B",
        "9999999TiB",
        "3.5 bits",
        "0.5B",
    ],
)
def test_absurd_budgets_are_refused(text: str) -> None:
    with pytest.raises(InvalidBudget):
        parse_budget(text)


@given(st.integers(1, 640), st.integers(1, 10**9), st.integers(0, 10**9))
def test_bits_per_weight_leave_the_rest_of_the_file_out(tenths: int, weights: int, other: int) -> None:
    allowed = parse_budget(f"{tenths / 10}bpw").unit_bytes(weights=weights, other_bytes=other)
    assert allowed * 8 * 10 <= tenths * weights < (allowed + 1) * 8 * 10


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_whole_file_budgets_pay_for_everything(size: int, other: int) -> None:
    assert parse_budget(f"{size}B").unit_bytes(weights=1, other_bytes=other) == size - other


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (3 * 2**30, "3.00 GiB"), (5 * 2**50, "5120.00 TiB")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    "text",
    [
        "24GiB device, 8192 context, batch 4",
        "batch 4, context 8192, 24GiB device",
        "24 GiB device,8192 context,4 batch",
    ],
)
def test_device_budgets(text: str) -> None:
    budget = parse_budget(text)
    assert (budget.value, budget.whole_file) == (24 * 2**30, True)
    assert budget.served is not None
    assert (budget.served.context, budget.served.batch) == (8192, 4)


def test_a_device_serves_one_sequence_unless_told() -> None:
    served = parse_budget("80GB device, 4096 context").served
    assert served is not None
    assert served.batch == 1


@pytest.mark.parametrize(
    "text",
    [
        "24GiB device", "24GiB device, 0 context", "24GiB device, 8192 context, batch 0", "3.5bpw device, 10 context",
        "device, 10 context", "24GiB device, 10 context, 11 context", "24GiB device, 10 context, fast",
        "24GiB device, -1 context", "24GiB device, 10 context, 24GiB device",
    ],
)  # fmt: skip
def test_device_budgets_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidBudget):
        parse_budget(text)
