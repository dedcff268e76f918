"""GPTQ against a plain float64 reference of the paper's algorithm, and what it promises on real statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import InvalidCalibration, InvalidInput, InvalidModel, Unsupported
from bitwright.core.formats import GRID_FORMATS, NAMED, IntFormat, parse_format
from quantizers.base import Quantized, group_spans
from quantizers.gptq import QUANTIZER, inverse_factor
from quantizers.hessian import damped
from quantizers.rtn import QUANTIZER as RTN
from quantizers.rtn import group_parameters


def moments(columns: int, tokens: int = 400, seed: int = 0) -> np.ndarray:
    """Correlated inputs: second moments that make compensation worthwhile."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((columns, columns)) / np.sqrt(columns) + 0.5 * np.eye(columns)
    x = rng.standard_normal((tokens, columns)) @ mix * rng.uniform(0.2, 2, columns)
    return np.asarray(x.T @ x)


def error(weight: np.ndarray, dense: np.ndarray, hessian: np.ndarray) -> float:
    delta = (weight - dense).astype(np.float64)
    return float(np.einsum("ri,ij,rj->", delta, hessian, delta))


def plain_gptq(weight: np.ndarray, format: IntFormat, hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column by column with the explicit inverse, re-inverted for the columns left after each step; no blocks."""
    h = damped(hessian, 0.01)
    work = weight.astype(np.float64)
    columns, top = weight.shape[1], (1 << format.width) - 1
    codes, dense = np.zeros(weight.shape, np.uint8), np.zeros(weight.shape)
    spans = group_spans(columns, format)
    scale = zero = np.zeros(weight.shape[0])
    for j in range(columns):
        for start, stop in spans:
            if j == start:
                group = work[:, start:stop].astype(np.float32)[:, None, :]
                s, z = group_parameters(group, group.min(axis=-1), group.max(axis=-1), format, "w")
                scale, zero = s[:, 0].astype(np.float64), z[:, 0].astype(np.float64)
        left = np.linalg.inv(h[j:, j:])
        codes[:, j] = np.clip(np.rint(work[:, j] / scale) + zero, 0, top)
        dense[:, j] = (codes[:, j] - zero) * scale
        work[:, j:] -= np.outer((work[:, j] - dense[:, j]) / left[0, 0], left[0])
    return codes, dense


@pytest.mark.parametrize("name", ["int2-g16", "int3-sym-g32", "int4-channel", "int8-sym-g7", "int1-g16"])
@pytest.mark.parametrize("block", [1, 5, 128])
def test_gptq_equals_the_reference(name: str, block: int) -> None:
    format = parse_format(name)
    assert isinstance(format, IntFormat)
    weight = np.random.default_rng(1).standard_normal((6, 50)).astype(np.float32)
    hessian = moments(50)
    codes, dense = plain_gptq(weight, format, hessian)
    value = QUANTIZER.quantize(weight, format, hessian=hessian, block=block, order="natural")
    assert isinstance(value, Quantized)
    assert np.array_equal(value.codes, codes)
    assert np.allclose(value.dequantize(), dense, atol=1e-6)


def test_the_factor_is_that_of_the_inverse() -> None:
    hessian = moments(40)
    upper, order = inverse_factor(hessian, 0.01, "natural", "w")
    assert np.allclose(upper, np.triu(upper))
    assert np.allclose(upper.T @ upper, np.linalg.inv(damped(hessian, 0.01)), rtol=1e-8)
    assert order.tolist() == list(range(40))


@pytest.mark.parametrize("order", ["natural", "activation"])
@pytest.mark.parametrize("scales", ["range", "clip"])
@pytest.mark.parametrize("name", ["int2-g32", "int3-g32", "int4-sym-g32"])
def test_gptq_lowers_the_output_error(name: str, scales: str, order: str) -> None:
    weight = np.random.default_rng(2).standard_normal((48, 96)).astype(np.float32)
    hessian = moments(96)
    nearest = RTN.quantize(weight, parse_format(name)).dequantize()
    ours = QUANTIZER.quantize(weight, parse_format(name), hessian=hessian, order=order, scales=scales).dequantize()
    assert error(weight, ours, hessian) < 0.75 * error(weight, nearest, hessian)


def test_independent_inputs_give_plain_rounding() -> None:
    weight = np.random.default_rng(3).standard_normal((5, 40)).astype(np.float32)
    for hessian in (np.diag(np.arange(1.0, 41)), np.zeros((40, 40))):
        value = QUANTIZER.quantize(weight, parse_format("int4-g16"), hessian=hessian)
        assert np.array_equal(value.dequantize(), RTN.quantize(weight, parse_format("int4-g16")).dequantize())


def test_dead_inputs_keep_their_weights() -> None:
    weight = np.random.default_rng(4).standard_normal((5, 40)).astype(np.float32)
    hessian = moments(40)
    hessian[7] = 0
    hessian[:, 7] = 0
    dense = QUANTIZER.quantize(weight, parse_format("int8-channel"), hessian=hessian).dequantize()
    assert np.allclose(dense[:, 7], weight[:, 7], atol=0.02)


def test_a_singular_hessian_is_damped() -> None:
    x = np.random.default_rng(5).standard_normal((3, 60))
    weight = np.random.default_rng(6).standard_normal((4, 60)).astype(np.float32)
    value = QUANTIZER.quantize(weight, parse_format("int3-g20"), hessian=x.T @ x, damping=0.0001)
    assert np.isfinite(value.dequantize()).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hessian": np.eye(3)},
        {"hessian": np.full((8, 8), np.nan)},
        {"hessian": np.triu(np.ones((8, 8)))},
        {"hessian": -np.ones((8, 8)) + np.diag(np.full(8, 2.0)), "damping": 0.0},
    ],
)
def test_unusable_calibration_is_a_typed_error(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidCalibration):
        QUANTIZER.quantize(np.ones((2, 8), np.float32), parse_format("int4-g8"), **options)


@pytest.mark.parametrize("options", [{"order": "random"}, {"scales": "best"}, {"block": 0}, {"damping": -1.0}])
def test_unusable_settings_are_typed_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        QUANTIZER.quantize(np.ones((2, 8), np.float32), parse_format("int4-g8"), hessian=np.eye(8), **options)


def test_infinite_weights_are_refused() -> None:
    weight = np.full((2, 8), np.inf, np.float32)
    with pytest.raises(InvalidModel, match="layer"):
        QUANTIZER.quantize(weight, parse_format("int4-g8"), hessian=np.eye(8), name="layer")


@pytest.mark.parametrize("order", ["natural", "activation"])
def test_native_and_numpy_sweeps_give_the_same_codes(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(7).standard_normal((70, 90)).astype(np.float32)
    hessian = moments(90)

    def codes() -> np.ndarray:
        value = QUANTIZER.quantize(weight, parse_format("int3-g32"), hessian=hessian, order=order, block=32)
        assert isinstance(value, Quantized)
        return value.codes

    native = codes()
    monkeypatch.setattr("quantizers.sweep.library", lambda: None)
    assert np.array_equal(native, codes())


@pytest.mark.parametrize(
    "name",
    [
        *sorted(set(NAMED) - {"bf16", "fp16"} - set(GRID_FORMATS)), "nf4-g24", "int-l6-g64", "int3-g64-bf16",
        "int4-sym-g64-fp32", "int5-tensor",
    ],
)  # fmt: skip
def test_every_format_gains_from_gptq(name: str) -> None:
    format, columns = parse_format(name), 512
    weight = np.random.default_rng(8).standard_normal((24, columns)).astype(np.float32)
    hessian = moments(columns, 1500)
    value = QUANTIZER.quantize(weight, format, hessian=hessian)
    assert value.format == format
    assert value.shape == weight.shape
    nearest = RTN.quantize(weight, format)
    assert [a.shape for a in value.arrays()] == [a.shape for a in nearest.arrays()]
    assert error(weight, value.dequantize(), hessian) < 0.97 * error(weight, nearest.dequantize(), hessian)


def test_formats_that_rotate_are_refused() -> None:
    weight = np.zeros((4, 64), np.float32)
    with pytest.raises(Unsupported, match="gptq cannot make") as error:
        QUANTIZER.quantize(weight, parse_format("higgs-p2-n64"), hessian=moments(64, 100))
    assert error.value.hint == "use --quantizer rtn for formats that rotate weights"


def test_a_block_format_of_one_block_is_rounded_to_nearest() -> None:
    weight = np.random.default_rng(9).standard_normal((5, 256)).astype(np.float32)
    value = QUANTIZER.quantize(weight, parse_format("q4_k"), hessian=moments(256, 500))
    assert np.array_equal(value.dequantize(), RTN.quantize(weight, parse_format("q4_k")).dequantize())
