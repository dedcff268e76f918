"""Compensation against float64 oracles, its gate, and what it must never change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import parse_format
from quantizers.base import Quantized, dequantize, group_spans
from quantizers.catalog import QUANTIZERS
from quantizers.compensation import RIDGE, kept, row_errors
from quantizers.gain import Gain
from quantizers.hessian import damped
from quantizers.ridge import Ridge
from quantizers.rtn import QUANTIZER as RTN
from tests.strategies import format_names

#: Those that make another matrix; who moves biases leaves it alone (test_bias.py).
COMPENSATED = [
    entry.name
    for entry in QUANTIZERS
    if entry.traits.get("held_out") and not hasattr(QUANTIZERS.load(entry.name), "bias_shift")
]


def inputs(rng: np.random.Generator, columns: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Moments of two draws of tokens whose inputs hang together."""
    mix = rng.standard_normal((columns, columns)) / np.sqrt(columns) + np.eye(columns)
    found = [rng.standard_normal((tokens, columns)) @ mix for _ in range(2)]
    return found[0].T @ found[0], found[1].T @ found[1]


def rounded(rng: np.random.Generator, rows: int, columns: int, name: str) -> tuple[np.ndarray, Quantized]:
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    value = RTN.quantize(weight, parse_format(name))
    assert isinstance(value, Quantized)
    return weight, value


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 40), st.sampled_from(["int2-g8", "int3-sym-g16", "int4-channel"]), st.integers()
)
def test_the_ridge_correction_is_what_the_paper_says(rows: int, columns: int, name: str, seed: int) -> None:
    """Oracle: each correction is the minimizer of d H d' + ridge over what is left, by least squares on a root of H."""
    rng = np.random.default_rng(abs(seed))
    weight, value = rounded(rng, rows, columns, name)
    hessian = damped(inputs(rng, columns, 3 * columns + 4)[0], RIDGE)
    made = Ridge().improve(weight, value, hessian)
    root = np.linalg.cholesky(hessian).T  # H = root' root
    spans = group_spans(columns, value.format)
    group = np.repeat(np.arange(len(spans)), [b - a for a, b in spans])
    scale = value.scales.astype(np.float64)[:, group]
    zero = (np.full(value.scales.shape, value.format.middle) if value.zeros is None else value.zeros)[:, group]
    for row in range(rows):
        work, left = weight[row].astype(np.float64), list(np.argsort(-np.diag(hessian), kind="stable"))
        while left:
            half = -(-len(left) // 2)
            now, left = left[:half], left[half:]
            q = np.clip(np.rint(work[now] / scale[row, now]) + zero[row, now], 0, value.format.top)
            assert np.array_equal(made.codes[row, now], q.astype(np.uint8))
            delta = (q - zero[row, now]) * scale[row, now] - work[now]
            if left:
                work[left] += np.linalg.lstsq(root[:, left], -root[:, now] @ delta, rcond=None)[0]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(9, 70),
    st.sampled_from(["int2-g16", "int3-sym-g32", "int2-channel-fp32"]),
    st.integers(),
)
def test_the_gain_makes_a_row_as_loud_as_it_was(rows: int, columns: int, name: str, seed: int) -> None:
    """Oracle: w H v' = w H w' for every row, to the rounding of its scales, where no limit holds the factor back."""
    rng = np.random.default_rng(abs(seed))
    weight, value = rounded(rng, rows, columns, name)
    hessian = damped(inputs(rng, columns, 2 * columns)[0], RIDGE)
    made = Gain().improve(weight, value, hessian)
    assert np.array_equal(made.codes, value.codes)
    for row in range(rows):
        w = weight[row].astype(np.float64)
        before, after = (float(w @ hessian @ dequantize(v)[row].astype(np.float64)) for v in (value, made))
        loud = float(w @ hessian @ w)
        factor = min(max(loud / before, 0.7), 1.5) if before > 0 else 1.0
        # Each scale is off by at most 2^-11 of itself; the sum of what they carry bounds what that does.
        carried = np.abs((w @ hessian) * dequantize(made)[row]).sum()
        assert after == pytest.approx(before * factor, abs=2**-10 * carried)


def test_scales_that_would_not_fit_stay() -> None:
    codes, scales = np.array([[0, 3]], np.uint8), np.array([[65504.0]], np.float16)
    value = Quantized(codes, scales, None, parse_format("int2-sym-g2"))
    made = Gain().improve(value.dequantize() * np.float32(1.2), value, np.eye(2))
    assert np.array_equal(made.scales, value.scales)


def test_gain_corrected_gptq_is_gptq_with_other_scales() -> None:
    rng = np.random.default_rng(2)
    fit, _ = inputs(rng, 64, 300)
    weight, format = rng.standard_normal((6, 64)).astype(np.float32), parse_format("int2-g32")
    plain, made = (QUANTIZERS.load(name).quantize(weight, format, hessian=fit) for name in ("gptq", "gptq-gain"))
    assert np.array_equal(plain.codes, made.codes)
    assert not np.array_equal(plain.scales, made.scales)
    assert [(a.shape, a.dtype) for a in made.arrays()] == [(a.shape, a.dtype) for a in plain.arrays()]


@pytest.mark.parametrize("name", COMPENSATED)
@settings(max_examples=20, deadline=None)
@given(format=format_names(), seed=st.integers(0, 2**32 - 1), tokens=st.sampled_from([3, 40, 400]))
def test_no_row_gets_worse_on_held_out_tokens(name: str, format: str, seed: int, tokens: int) -> None:
    """And no byte is added."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((5, 64)).astype(np.float32)
    fit, other = inputs(rng, 64, tokens)
    quantizer = QUANTIZERS.load(name)
    plain = quantizer.quantize(weight, parse_format(format), hessian=fit)
    made = quantizer.quantize(weight, parse_format(format), hessian=fit, held_out=other)
    assert made.format == plain.format
    assert [(a.shape, a.dtype) for a in made.arrays()] == [(a.shape, a.dtype) for a in plain.arrays()]
    if isinstance(made, Quantized) and not made.format.tensor:
        assert (row_errors(weight, made, other) <= row_errors(weight, plain, other)).all()
    again = quantizer.quantize(weight, parse_format(format), hessian=fit, held_out=other)
    assert np.array_equal(dequantize(made), dequantize(again))


@pytest.mark.parametrize("name", COMPENSATED)
def test_compensation_lowers_the_error_on_tokens_that_nobody_saw(name: str) -> None:
    rng = np.random.default_rng(3)
    mix = rng.standard_normal((128, 128)) / np.sqrt(128) + np.eye(128)
    fit, held, fresh = ((x := rng.standard_normal((2000, 128)) @ mix).T @ x for _ in range(3))
    weight = rng.standard_normal((32, 128)).astype(np.float32)
    quantizer, format = QUANTIZERS.load(name), parse_format("int2-g32")
    plain = quantizer.quantize(weight, format, hessian=fit)
    made = quantizer.quantize(weight, format, hessian=fit, held_out=held)
    assert row_errors(weight, made, fresh).sum() < 0.8 * row_errors(weight, plain, fresh).sum()


def test_the_gate_keeps_what_was_there_when_nothing_is_better() -> None:
    rng = np.random.default_rng(0)
    weight, value = rounded(rng, 4, 32, "int3-g16")
    worse = Quantized(value.codes ^ np.uint8(1), value.scales, value.zeros, value.format)
    assert kept(weight, value, worse, np.eye(32)) is value
    mixed = kept(weight, worse, value, np.eye(32))
    assert np.array_equal(mixed.codes, value.codes)


@pytest.mark.parametrize("name", COMPENSATED)
def test_rows_of_several_formats_are_compensated_too(name: str) -> None:
    rng = np.random.default_rng(1)
    fit, other = inputs(rng, 64, 300)
    weight = rng.standard_normal((6, 64)).astype(np.float32)
    format = parse_format("row(int2-g32,int4-g32)").chosen(bytes([0, 1, 0, 1, 0, 1]))  # type: ignore[attr-defined]
    quantizer = QUANTIZERS.load(name)
    plain = quantizer.quantize_mixed(weight, format, hessian=fit)
    made = quantizer.quantize_mixed(weight, format, hessian=fit, held_out=other)
    for delta, base in ((dequantize(made) - weight, dequantize(plain) - weight),):
        errors = [np.einsum("ri,ri->r", d @ other, d) for d in (delta, base)]
        assert (errors[0] <= errors[1] * (1 + 1e-9)).all()
        assert errors[0].sum() < errors[1].sum()
