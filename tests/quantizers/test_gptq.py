"""GPTQ against a plain float64 reference of the paper's algorithm, and what it promises on real statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.core.errors import InvalidCalibration, InvalidInput, InvalidModel, Unsupported
from bitwright.core.formats import GRID_FORMATS, NAMED, IntFormat, parse_format
from quantizers.base import Quantized, group_spans
from quantizers.gptq import QUANTIZER, inverse_factor
from quantizers.hessian import checked_hessian, damped
from quantizers.mixed import quantize
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


def plain_gptq(
    weight: np.ndarray, format: IntFormat, hessian: np.ndarray, order: str = "natural", groups: str = "moving",
    damping: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Column by column with the explicit inverse, re-inverted for the columns left after each step; no blocks."""
    h = damped(hessian, damping)
    columns, top = weight.shape[1], (1 << format.width) - 1
    left = list(np.argsort(-np.diag(hessian), kind="stable")) if order == "activation" else list(range(columns))
    work = weight.astype(np.float64)
    codes, dense = np.zeros(weight.shape, np.uint8), np.zeros(weight.shape)
    of: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    spans = group_spans(columns, format)
    while left:
        j = left[0]
        start, stop = next((a, b) for a, b in spans if a <= j < b)
        if start not in of:
            source = weight if groups == "static" else work
            group = source[:, start:stop].astype(np.float32)[:, None, :]
            s, z = group_parameters(group, group.min(axis=-1), group.max(axis=-1), format, "w")
            of[start] = s[:, 0].astype(np.float64), z[:, 0].astype(np.float64)
        scale, zero = of[start]
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        codes[:, j] = np.clip(np.rint(work[:, j] / scale) + zero, 0, top)
        dense[:, j] = (codes[:, j] - zero) * scale
        work[:, left] -= np.outer((work[:, j] - dense[:, j]) / inverse[0, 0], inverse[0])
        left = left[1:]
    return codes, dense


@pytest.mark.parametrize(
    "told",
    [
        {"order": "activation", "groups": "static"},
        {"order": "natural", "groups": "static"},
        {"order": "natural", "groups": "moving", "damping": 0.1},
        {"order": "activation", "groups": "static", "damping": 0.5, "block": 7},
    ],
)
@pytest.mark.parametrize("name", ["int2-g16", "int3-sym-g32", "int4-channel"])
def test_every_option_is_the_references(name: str, told: dict[str, Any]) -> None:
    """Activation order, static groups, other dampings, lazy blocks of another length, and inputs that are dead."""
    format = parse_format(name)
    assert isinstance(format, IntFormat)
    weight = np.random.default_rng(11).standard_normal((5, 40)).astype(np.float32)
    hessian = moments(40, seed=2)
    hessian[[3, 17], :] = hessian[:, [3, 17]] = 0
    codes, dense = plain_gptq(weight, format, hessian, **{k: v for k, v in told.items() if k != "block"})
    value = QUANTIZER.quantize(weight, format, hessian=hessian, **told)
    assert isinstance(value, Quantized)
    assert np.array_equal(value.codes, codes)
    assert np.allclose(value.dequantize(), dense, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["q4_0", "mxfp4", "fp8-e4m3", "nvfp4"])
def test_blocks_are_made_up_for_as_the_reference_does(name: str) -> None:
    """Oracle: after each block the exact least-squares update of what is left, from the explicit inverse of H."""
    format = parse_format(name)
    weight = np.random.default_rng(12).standard_normal((3, 96)).astype(np.float32)
    hessian = moments(96, seed=4)
    value = QUANTIZER.quantize(weight, format, hessian=hessian)
    dense, h, work = value.dequantize().astype(np.float64), damped(hessian, 0.01), weight.astype(np.float64)
    step = max(16, format.block) if format.block == 1 else format.block * max(1, 16 // format.block)  # type: ignore[attr-defined]
    for start in range(0, 96, step):
        stop = start + step
        # What the rounding of this block starts from: no weight of it may lie further off than its own rounding moves.
        nearest = RTN.quantize(np.ascontiguousarray(work[:, start:stop], np.float32), format).dequantize()
        if name in ("q4_0", "mxfp4"):  # no scale beyond the block's own
            assert np.allclose(dense[:, start:stop], nearest, rtol=1e-4, atol=1e-5)
        error = work[:, start:stop] - dense[:, start:stop]
        assert np.abs(error).max() <= 0.35 * np.abs(work[:, start:stop]).max()
        if stop < 96:
            work[:, stop:] += error @ h[start:stop, stop:] @ np.linalg.inv(h[stop:, stop:])


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


@pytest.mark.parametrize(
    "options",
    [
        {"order": "random"}, {"scales": "best"}, {"block": 0}, {"damping": -1.0}, {"damping": "much"}, {"block": 2.5},
        {"groups": "none"}, {"order": "activation", "groups": "moving"}, {"groups": "moving"}, {"damping": True},
    ],
)  # fmt: skip
def test_unusable_settings_are_typed_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        QUANTIZER.quantize(np.ones((2, 8), np.float32), parse_format("int4-g8"), hessian=np.eye(8), **options)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("q4_0", {"order": "activation"}), ("mxfp4", {"scales": "clip"}), ("nf4", {"order": "activation"}),
        ("sign-g16", {"scales": "clip"}), ("column:16(int2-g16,int4-g16)", {"order": "natural"}),
        ("group(int2-g16,int4-g16)", {"scales": "clip"}),
    ],
)  # fmt: skip
def test_settings_that_a_format_cannot_follow_are_refused(name: str, told: dict[str, Any]) -> None:
    weight, format = np.ones((2, 32), np.float32), parse_format(name)
    if "(" in name:
        parts = 2 if name.startswith("column") else 4
        format = format.chosen(bytes([0, 1] * (parts // 2)))  # type: ignore[attr-defined]
    with pytest.raises(Unsupported, match="gptq"):
        quantize(QUANTIZER, weight, format, name="w", hessian=np.eye(32), **told)


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
    monkeypatch.setattr("gpu_kernels.threads._LEAST", 1)  # some rows a thread
    monkeypatch.setattr("gpu_kernels.threads.threads", lambda: 3)
    assert np.array_equal(native, codes())
    monkeypatch.setattr("quantizers.sweep.library", lambda: None)
    assert np.array_equal(native, codes())


@pytest.mark.parametrize(("row", "column", "by", "symmetric"), [
    (299, 1, 2.0, False), (1, 299, 2.0, False), (299, 1, 1 + 3e-4, False), (140, 131, 1 + 3e-4, False),
    (299, 1, 1 + 3e-5, True), (131, 140, 1 + 3e-5, True), (7, 7, 2.0, True),
])  # fmt: skip
def test_hessians_are_symmetric_to_a_ten_thousandth(row: int, column: int, by: float, symmetric: bool) -> None:
    """Any pair, wherever it lies, by the rule of np.allclose on both sides of the diagonal."""
    hessian = moments(300)
    hessian[row, column] = hessian[column, row] = 500
    hessian[row, column] *= by
    tolerance = 1e-6 * np.abs(hessian).max()
    assert np.allclose(hessian, hessian.T, rtol=1e-4, atol=tolerance) == symmetric
    if symmetric:
        assert checked_hessian(hessian, 300, "w") is hessian
        return
    with pytest.raises(InvalidCalibration, match="not symmetric"):
        checked_hessian(hessian, 300, "w")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_hessians_are_finite(value: float) -> None:
    hessian = moments(20)
    hessian[3, 17] = value
    with pytest.raises(InvalidCalibration, match="NaN or infinity"):
        checked_hessian(hessian, 20, "w")


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
