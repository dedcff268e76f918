"""Bias correction against float64 oracles, its gate, and biases as they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import InvalidCalibration, Unsupported
from bitwright.core.formats import parse_format
from gpu_kernels.kernels import widen
from quantizers.base import dequantize, float32_to_bf16
from quantizers.bias import bias_shift, mean_shift, shifted
from quantizers.catalog import QUANTIZERS

MOVERS = [name for name in QUANTIZERS.names() if hasattr(QUANTIZERS.load(name), "bias_shift")]


def made(name: str, rows: int, columns: int, rng: np.random.Generator, format: str = "int2-g16"):
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    quantizer = QUANTIZERS.load(name)
    return weight, quantizer, quantizer.quantize(weight, parse_format(format), hessian=np.eye(columns))


@pytest.mark.parametrize("name", MOVERS)
def test_a_planted_mean_shift_is_undone_exactly(name: str) -> None:
    """Inputs that are their mean on every token: the corrected layer answers as the original one."""
    rng = np.random.default_rng(1)
    weight, quantizer, value = made(name, 9, 48, rng)
    mean = rng.standard_normal(48)
    shift = bias_shift(quantizer, weight, value, name="layer", mean=mean, held_out_mean=mean)
    assert shift is not None
    wanted = weight.astype(np.float64) @ mean
    rounded = dequantize(value).astype(np.float64) @ mean
    assert np.abs(rounded - wanted).max() > 0.1
    assert np.abs(rounded + shift - wanted).max() < 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_every_output_is_the_better_of_two_on_held_out_tokens(rows: int, columns: int, bent: float, seed: int) -> None:
    """Oracle: mean squared errors over the tokens themselves, in float64, with the whole shift and without."""
    rng = np.random.default_rng(seed)
    weight, dense = (rng.standard_normal((rows, columns)).astype(np.float32) for _ in range(2))
    fit = rng.standard_normal((7, columns)) + bent * rng.standard_normal(columns)
    other = rng.standard_normal((5, columns)) + bent * rng.standard_normal(columns)
    found = mean_shift(weight, dense, fit.mean(axis=0), other.mean(axis=0), "layer")
    error = dense.astype(np.float64) - weight
    whole = -(fit @ error.T).mean(axis=0)
    for row in range(rows):
        plain = ((other @ error[row]) ** 2).mean()
        moved = ((other @ error[row] + whole[row]) ** 2).mean()
        if abs(plain - moved) > 1e-9 * max(plain, moved, 1.0):
            assert found[row] == (pytest.approx(whole[row], rel=1e-9, abs=1e-12) if moved < plain else 0)
        assert ((other @ error[row] + found[row]) ** 2).mean() <= plain * (1 + 1e-9)


@pytest.mark.parametrize("name", MOVERS)
def test_what_would_harm_held_out_tokens_is_refused(name: str) -> None:
    rng = np.random.default_rng(2)
    weight, quantizer, value = made(name, 5, 32, rng)
    mean = rng.standard_normal(32)
    against = bias_shift(quantizer, weight, value, name="layer", mean=mean, held_out_mean=-mean)
    assert against is not None
    assert not against.any()
    without = bias_shift(quantizer, weight, value, name="layer", mean=mean)
    unseen = bias_shift(quantizer, weight, value, name="layer", mean=mean, held_out_mean=np.zeros(32))
    assert without is not None and not without.any()  # noqa: PT018
    assert unseen is not None and not unseen.any()  # noqa: PT018


@pytest.mark.parametrize("name", MOVERS)
@pytest.mark.parametrize("format", ["row(int2-g16,int4-g16)", "int3-sym-g16", "bf16", "q4_0"])
def test_any_format_has_a_bias_to_move(name: str, format: str) -> None:
    """And the matrix is the base quantizer's, to the byte."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((6, 64)).astype(np.float32)
    parsed = parse_format(format)
    if format.startswith("row"):
        parsed = parsed.chosen(bytes([0, 1, 0, 1, 0, 1]))  # type: ignore[attr-defined]
    from quantizers.mixed import quantize

    quantizer, base = QUANTIZERS.load(name), QUANTIZERS.load(name.removesuffix("-bias"))
    value, plain = (quantize(one, weight, parsed, name="layer", hessian=np.eye(64)) for one in (quantizer, base))
    assert all(np.array_equal(a, b) for a, b in zip(value.arrays(), plain.arrays(), strict=True))
    mean = rng.standard_normal(64)
    shift = bias_shift(quantizer, weight, value, name="layer", mean=mean, held_out_mean=mean)
    assert shift is not None
    assert np.allclose(shift, -(dequantize(value).astype(np.float64) - weight) @ mean, rtol=1e-12, atol=1e-15)


def test_biases_that_do_not_move_keep_their_bits() -> None:
    shift = np.array([0.0, 0.25, 0.0, -1e-3])
    for stored in (
        np.array([1e-40, 2.0, -0.0, 0.5], np.float32),
        np.array([6e-8, 2.0, -0.0, 0.5], np.float16),
        float32_to_bf16(np.array([1e-40, 2.0, -0.0, 0.5], np.float32)),
    ):
        moved = shifted(stored, shift, "layer")
        assert moved.dtype == stored.dtype
        assert moved[[0, 2]].tobytes() == stored[[0, 2]].tobytes()
        wide = widen(moved) if moved.dtype != np.float32 else moved
        assert np.allclose(wide[[1, 3]], [2.25, 0.499], rtol=2**-8)


def test_wrong_means_and_biases_that_do_not_fit_are_refused() -> None:
    weight = np.ones((2, 3), np.float32)
    for mean in (np.ones(4), np.array([1.0, np.nan, 0]), np.ones((3, 1))):
        with pytest.raises(InvalidCalibration, match="mean of the inputs"):
            mean_shift(weight, weight, mean, np.ones(3), "layer")
    with pytest.raises(Unsupported, match="does not fit"):
        shifted(np.array([60000.0], np.float16), np.array([9000.0]), "layer")
    assert (
        bias_shift(
            QUANTIZERS.load("rtn"), weight, QUANTIZERS.load("rtn").quantize(weight, parse_format("bf16")), name="x"
        )
        is None
    )
