"""The clip search: never worse than the best single range, never shrinking, equal to trying everything."""

from __future__ import annotations

import numpy as np
import pytest

from bitwright.core.errors import InvalidCalibration, InvalidInput, Unsupported
from bitwright.core.formats import IntFormat, parse_format
from quantizers.base import group_spans
from quantizers.clip import QUANTIZER, RATIOS
from quantizers.rtn import group_parameters


def weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, (rows, columns)).astype(np.float32)


def moments(columns: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((300, columns)) @ (
        np.eye(columns) + 0.3 * np.random.default_rng(seed + 1).standard_normal((columns, columns)) / np.sqrt(columns)
    )
    return np.asarray(x.T @ x)


def by_hand(row: np.ndarray, format: IntFormat, h: np.ndarray) -> float:
    """Least error over all ratios, in float64 loops, for one group of one row."""
    half, top, best = 1 << (format.width - 1), (1 << format.width) - 1, np.inf
    for ratio in RATIOS:
        low, high = row.min() * np.float32(ratio), row.max() * np.float32(ratio)
        bounds = np.array([[low]]), np.array([[high]])
        s, z = group_parameters(row[None, None], *bounds, format, "w")
        scale, zero = float(s[0, 0]), half if format.symmetric else int(z[0, 0])
        steps = np.clip(np.rint(row / scale) + zero, 0, top) - zero
        along = float(row @ h @ steps)
        gain = float(row @ h @ row) / (along * scale) if along * scale > 0 else 1.0
        final = float(np.float16(min(max(gain, 0.7), 1.5) * scale))
        delta = row - final * steps
        best = min(best, float(delta @ h @ delta))
    return best


@pytest.mark.parametrize("name", ["int2-g32", "int3-sym-g32", "int4-g20", "int5-sym-channel"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_the_search_finds_what_trying_everything_finds(name: str, calibrated: bool) -> None:
    format = parse_format(name)
    assert isinstance(format, IntFormat)
    weight = weights(5, 50)
    hessian = moments(50) if calibrated else None
    dense = QUANTIZER.quantize(weight, format, hessian=hessian).dequantize()
    for start, stop in group_spans(50, format):
        h = np.eye(stop - start) if hessian is None else hessian[start:stop, start:stop]
        for row in range(5):
            delta = (weight[row, start:stop] - dense[row, start:stop]).astype(np.float64)
            found, least = float(delta @ h @ delta), by_hand(weight[row, start:stop].astype(np.float64), format, h)
            assert found <= least * 1.02 + 1e-9


@pytest.mark.parametrize("name", ["int2-g32", "int3-sym-g32", "int4-channel"])
@pytest.mark.parametrize("error", ["plain", "salience"])
def test_the_error_that_is_asked_for_is_the_one_that_is_least(name: str, error: str) -> None:
    """Oracle: every ratio by hand, with SliM-LLM's salience of the paper's definition as the weights' own weights."""
    format = parse_format(name)
    assert isinstance(format, IntFormat)
    weight, hessian = weights(5, 50), moments(50)
    damping = 0.01 * np.diag(hessian).mean() * np.eye(50)
    # The factor by its definition: the upper triangle U with U'U = H^-1.
    upper = np.linalg.cholesky(np.linalg.inv(hessian + damping)).T
    salience = weight.astype(np.float64) ** 2 / np.diag(upper) ** 2 if error == "salience" else np.ones((5, 50))
    dense = QUANTIZER.quantize(weight, format, hessian=hessian, error=error).dequantize()
    for start, stop in group_spans(50, format):
        for row in range(5):
            h = np.diag(salience[row, start:stop])
            delta = (weight[row, start:stop] - dense[row, start:stop]).astype(np.float64)
            found, least = float(delta @ h @ delta), by_hand(weight[row, start:stop].astype(np.float64), format, h)
            assert found <= least * 1.02 + 1e-9


def test_errors_that_cannot_be_weighed_are_refused() -> None:
    weight = weights(2, 8)
    with pytest.raises(InvalidInput, match="option error"):
        QUANTIZER.quantize(weight, parse_format("int4-g4"), error="fisher")
    for error in ("hessian", "salience"):
        with pytest.raises(InvalidCalibration, match="second moments"):
            QUANTIZER.quantize(weight, parse_format("int4-g4"), error=error)


@pytest.mark.parametrize("name", ["int2-g64", "int3-g64", "int3-sym-g64", "int4-sym-g64"])
def test_clipping_lowers_the_error_without_shrinking(name: str) -> None:
    weight = weights(64, 128)
    one = QUANTIZER.quantize(weight, parse_format(name), ratios=(1.0,)).dequantize()
    many = QUANTIZER.quantize(weight, parse_format(name)).dequantize()
    assert ((many - weight) ** 2).sum() < 0.95 * ((one - weight) ** 2).sum()
    assert float((many * weight).sum() / (weight * weight).sum()) == pytest.approx(1.0, abs=0.02)


def test_errors_beyond_float32_are_told_and_not_guessed() -> None:
    """Moments so large that no error can be compared left codes that nobody had chosen."""
    for largest in (3e38, 1e60):
        with pytest.raises(Unsupported, match="cannot be compared"):
            QUANTIZER.quantize(weights(4, 8), parse_format("int4-g8"), hessian=np.eye(8) * largest)


def test_zero_groups_and_bad_hessians() -> None:
    weight = np.zeros((2, 8), np.float32)
    for name in ("int1-g4", "int2-sym-g4", "int4-g3"):
        assert np.all(QUANTIZER.quantize(weight, parse_format(name)).dequantize() == 0)
    with pytest.raises(InvalidCalibration):
        QUANTIZER.quantize(weight, parse_format("int4-g4"), hessian=np.eye(3))
