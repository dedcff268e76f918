"""rtn against a slow float64 reference, its promises on awkward groups, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.errors import BitwrightError, InvalidInput, InvalidModel, Unsupported
from bitwright.core.formats import BlockFormat, IntFormat, parse_format
from quantizers.base import PassThrough, Quantized, dequantize, group_spans
from quantizers.catalog import QUANTIZERS
from quantizers.rtn import GAIN_LIMITS, QUANTIZER, UNSHRINK_WIDTH
from tests.strategies import format_names, shapes

TINY = 2.0**-24
ODD_FORMATS = (
    "int1-g1", "int1-sym-g7", "int3-g7", "int4-sym-tensor", "int5-tensor-bf16", "int8-g64-fp32", "int-l3-g7", "sign-g7",
    "sign-channel", "nf4-g7", "q4_0", "q6_k", "fp8-e4m3", "mxfp4", "nvfp4", "higgs-p1-n8-g32", "bf16",
)  # fmt: skip


def to_half(value: float) -> float:
    return float(np.copysign(np.float16(max(abs(np.float32(value)), TINY)), value))


def to_stored(value: float, format: IntFormat) -> float:
    """A scale as its type stores it."""
    if format.scale == "F16":
        return to_half(value)
    return float(torch.tensor(value, dtype={"BF16": torch.bfloat16, "F32": torch.float32}[format.scale]))


def reference(group: np.ndarray, format: IntFormat) -> tuple[np.ndarray, float, int, float]:
    """(unrounded code positions, stored scale, zero, rounding scale) of one group, in Python floats."""
    width, half, top = format.width, format.levels // 2, format.levels - 1
    low, high = min(float(group.min()), 0.0), max(float(group.max()), 0.0)
    if format.symmetric:
        scale, zero = to_stored((high if high > -low else low) / -half, format), half
    else:
        scale = to_stored((high - low) / top, format)
        zero = int(min(max(np.rint(-low / scale), 0), top))
    position = np.clip(group.astype(np.float64) / scale + zero, 0, top)
    steps = np.clip(np.rint(group.astype(np.float64) / scale) + zero, 0, top) - zero
    stored = scale
    along = float(group.astype(np.float64) @ steps)
    if format.symmetric and width <= UNSHRINK_WIDTH and along != 0:
        gain = float((group.astype(np.float64) ** 2).sum()) / along / scale
        gain = min(max(gain, GAIN_LIMITS[0]), GAIN_LIMITS[1])
        stored = to_stored(gain * scale, format) if abs(gain * scale) >= TINY else scale
    return position, stored, zero, scale


@settings(max_examples=80, deadline=None)
@given(
    shapes(largest=70),
    format_names(widths=(2, 3, 4, 5, 6, 7, 8)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.0, 1e-4, 300.0]),
)
def test_rtn_equals_the_reference(shape: tuple[int, int], name: str, seed: int, spread: float) -> None:
    format = parse_format(name)
    weight = (np.random.default_rng(seed).standard_normal(shape[-2:]) * spread).astype(np.float32)
    value = QUANTIZER.quantize(weight, format)
    if not isinstance(format, IntFormat):
        assert isinstance(format, BlockFormat) or np.allclose(dequantize(value), weight, rtol=2**-8, atol=2**-24)
        return
    assert isinstance(value, Quantized)
    if format.tensor:
        weight = weight.reshape(1, -1)
        value = Quantized(value.codes.reshape(1, -1), value.scales[:1], value.zeros, format)
    for index, (start, stop) in enumerate(group_spans(weight.shape[1], format)):
        for row in range(min(4, weight.shape[0])):
            group = weight[row, start:stop]
            position, stored, zero, _ = reference(group, format)
            codes = value.codes[row, start:stop].astype(np.float64)
            # Away from a tie the code is the nearest one; at a tie float32 may take either neighbour.
            assert np.all(np.abs(codes - position) <= 0.5 + 1e-4)
            got = float(value.scales[row, index])
            assert got == pytest.approx(stored, rel=2e-2 if stop - start < 8 else 2e-3)
            if value.zeros is not None:
                assert abs(int(value.zeros[row, index]) - zero) <= 1
    assert value.codes.max(initial=0) < format.levels
    assert np.all(value.scales != 0)
    assert np.all(np.isfinite(value.scales))


@settings(max_examples=40, deadline=None)
@given(shapes(largest=90), format_names(widths=(2, 3, 4, 5, 6, 7, 8)), st.integers(0, 2**32 - 1))
def test_errors_stay_within_a_step(shape: tuple[int, int], name: str, seed: int) -> None:
    format = parse_format(name)
    weight = np.random.default_rng(seed).standard_normal(shape[-2:]).astype(np.float32)
    error = np.abs(dequantize(QUANTIZER.quantize(weight, format)) - weight)
    if not isinstance(format, IntFormat):
        return
    if format.tensor:
        weight, error = weight.reshape(1, -1), error.reshape(1, -1)
    for start, stop in group_spans(weight.shape[1], format):
        part = weight[:, start:stop]
        span = np.maximum(part.max(axis=1), 0) - np.minimum(part.min(axis=1), 0)
        step = span / format.top
        # Symmetric grids lose up to one step at the clipped end, and a correction of up to GAIN_LIMITS.
        limit = 0.6 * step if not format.symmetric else 0.55 * np.abs(part).max(axis=1)
        # A float16 scale below 2^-14 is rounded to a multiple of 2^-24, and the largest code multiplies that.
        assert np.all(error[:, start:stop].max(axis=1) <= limit + 1e-3 * span + 1e-7 + format.top * TINY / 2)


@pytest.mark.parametrize("width", range(2, 9))
def test_more_bits_lose_less_and_signed_scales_beat_the_half_step_grid(width: int) -> None:
    weight = np.random.default_rng(3).standard_normal((64, 512)).astype(np.float32)

    def loss(name: str) -> float:
        return float(((dequantize(QUANTIZER.quantize(weight, parse_format(name))) - weight) ** 2).mean())

    assert loss(f"int{width}-sym-g64") < loss(f"int{width - 1}-sym-g64")
    assert loss(f"int{width}-g64") < loss(f"int{width - 1}-g64")
    grouped, half = weight.reshape(-1, 64), 1 << (width - 1)
    scale = np.abs(grouped).max(axis=1, keepdims=True) / (half - 0.5)
    plain = np.clip(np.rint(grouped / scale), -half, half - 1) * scale
    assert loss(f"int{width}-sym-g64") < float(((plain - grouped) ** 2).mean())


@pytest.mark.parametrize("symmetric", ["", "-sym"])
@pytest.mark.parametrize("width", range(1, 9))
def test_zero_rows_and_single_weights(width: int, symmetric: str) -> None:
    weight = np.array([[0.0, 0.0, 0.0], [0.5, -0.25, 0.0], [6e-8, -6e-8, 1e-12]], np.float32)
    for group in ("g1", "g2", "channel"):
        value = QUANTIZER.quantize(weight, parse_format(f"int{width}{symmetric}-{group}"))
        dense = dequantize(value)
        assert np.all(dense[0] == 0)
        assert np.all(np.isfinite(dense))
        assert np.abs(dense).max() <= 1.01
    singles = dequantize(QUANTIZER.quantize(weight, parse_format(f"int{width}{symmetric}-g1")))
    assert np.allclose(singles[1], weight[1], rtol=1e-3)


def test_the_extreme_weight_is_exact_and_takes_the_long_side() -> None:
    weight = np.array([[2.0, -1.0, 0.5, 0.0], [-2.0, 1.0, 0.5, 0.0]], np.float32)
    value = QUANTIZER.quantize(weight, parse_format("int5-sym-channel"))
    assert isinstance(value, Quantized)
    assert np.array_equal(dequantize(value), weight)
    assert list(value.codes[:, 0]) == [0, 0]
    assert np.sign(value.scales[:, 0]).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("name", ["int2-sym-g64", "int3-sym-g64", "int4-sym-g32", "int1-g64", "int1-sym-g64"])
def test_narrow_grids_do_not_shrink_the_weights(name: str) -> None:
    weight = np.random.default_rng(5).standard_normal((200, 64)).astype(np.float32)
    dense = dequantize(QUANTIZER.quantize(weight, parse_format(name)))
    assert float((dense * weight).sum() / (weight * weight).sum()) == pytest.approx(1.0, abs=2e-3)


def test_blocks_of_rows_and_of_one_large_group_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(1).standard_normal((37, 100)).astype(np.float32)
    stored = (weight.view(np.uint32) >> 16).astype(np.uint16)
    names = (
        "int1-g32",
        "int4-g32",
        "int1-tensor",
        "int1-sym-tensor",
        "int3-sym-tensor",
        "int-l5-tensor",
        "bf16",
        "fp16",
    )
    for matrix in (weight, stored, np.zeros_like(weight), np.abs(weight)):
        whole = [QUANTIZER.quantize(matrix, parse_format(name)) for name in names]
        with monkeypatch.context() as patch:
            patch.setattr("quantizers.rtn.BLOCK_ELEMENTS", 700)
            again = [QUANTIZER.quantize(matrix, parse_format(name)) for name in names]
        for a, b in zip(whole, again, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a.arrays(), b.arrays(), strict=True))
    weight[36, 99] = np.nan
    monkeypatch.setattr("quantizers.rtn.BLOCK_ELEMENTS", 700)
    with pytest.raises(InvalidModel) as caught:
        QUANTIZER.quantize(weight, parse_format("bf16"))
    assert "1 of 3700" in (caught.value.got or "")


@settings(max_examples=40, deadline=None)
@given(shapes(), format_names(), st.sampled_from(["f4", "f2", "u2"]), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_a_matrix_read_in_pieces_is_the_whole_one(
    shape: tuple[int, int], name: str, kind: str, piece: int, seed: int
) -> None:
    weight = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    stored = (weight.view(np.uint32) >> 16).astype(np.uint16) if kind == "u2" else weight.astype(kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantizers.rtn.PIECE", piece)
        found = QUANTIZER.quantize_read(lambda start, stop: stored[start:stop], shape, parse_format(name))
    if found is not None:
        whole = QUANTIZER.quantize(stored, parse_format(name))
        assert all(np.array_equal(a, b) for a, b in zip(found.arrays(), whole.arrays(), strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pieces_leave_what_cannot_be_packed_to_the_whole_matrix(bad: float) -> None:
    weight = np.ones((40, 64), np.float32)
    weight[39, 63] = bad
    read = {"int4-g64": weight, "nf4": weight[:8], "int4-tensor": weight[:8]}
    for name, rows in read.items():
        assert QUANTIZER.quantize_read(lambda a, b, m=rows: m[a:b], rows.shape, parse_format(name)) is None  # type: ignore[misc]
    shrunk = QUANTIZER.quantize_read(lambda a, b: weight[a:b, :60], (8, 64), parse_format("int4-g64"))
    assert shrunk is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["int4-g64", "int1-sym-g8", "fp16", "bf16"])
def test_bad_weights_name_the_tensor(bad: float, name: str) -> None:
    weight = np.ones((4, 70), np.float32)
    weight[2, 69] = bad
    with pytest.raises(InvalidModel, match=r"model\.q_proj.*NaN or infinity"):
        QUANTIZER.quantize(weight, parse_format(name), name="model.q_proj")


@pytest.mark.parametrize("name", ["int2-g64", "int4-sym-channel", "fp16"])
def test_numbers_beyond_float16_are_refused_not_clipped(name: str) -> None:
    with pytest.raises(Unsupported, match="huge"):
        QUANTIZER.quantize(np.full((2, 64), 3e7, np.float32), parse_format(name), name="huge")


def test_bf16_keeps_what_fp16_cannot() -> None:
    weight = np.array([[3e38, 1e-40, -0.0, 1.00390625]], np.float32)
    value = QUANTIZER.quantize(weight, parse_format("bf16"))
    assert isinstance(value, PassThrough)
    assert dequantize(value)[0, 3] == 1.0  # a tie, rounded to even
    assert dequantize(value)[0, 0] == pytest.approx(3e38, rel=2**-8)


@pytest.mark.parametrize("weight", [np.ones(4, np.float32), np.ones((2, 2), np.float64)])
def test_other_arrays_are_refused(weight: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="float32 matrix"):
        QUANTIZER.quantize(weight, parse_format("int4-g64"))


@pytest.mark.parametrize("entry", list(QUANTIZERS), ids=lambda entry: entry.name)
def test_every_quantizer_keeps_the_contract(entry: object) -> None:
    quantizer = entry.load()  # type: ignore[attr-defined]
    weight = np.random.default_rng(0).standard_normal((9, 70)).astype(np.float32)
    hessian = np.diag(np.arange(1.0, 71))
    for name in ("int1-g32", "int3-g64", "int4-sym-channel", "int8-sym-g7", "bf16", "fp16"):
        value = quantizer.quantize(weight.copy(), parse_format(name), name="unit", hessian=hessian)
        again = quantizer.quantize(weight.copy(), parse_format(name), name="unit", hessian=hessian)
        assert value.format == parse_format(name)
        assert dequantize(value).shape == weight.shape
        assert dequantize(value).dtype == np.float32
        assert np.array_equal(dequantize(value), dequantize(again))
    with pytest.raises(BitwrightError):
        quantizer.quantize(np.full((2, 8), np.nan, np.float32), parse_format("int4-g8"), name="unit", hessian=np.eye(8))


@pytest.mark.parametrize("entry", list(QUANTIZERS), ids=lambda entry: entry.name)
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 7), (2, 70), (0, 8), (4, 0)])
def test_odd_shapes_and_weights_are_stored_or_refused_by_name(entry: object, shape: tuple[int, int]) -> None:
    """Ragged tails, groups of one, zero rows, nothing at all, numbers beyond every scale: a typed error or finite
    weights of the right shape, and no warning of numpy's on the way."""
    quantizer = entry.load()  # type: ignore[attr-defined]
    normal = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    context = {"hessian": np.eye(shape[1]), "held_out": np.eye(shape[1]), "mean": np.zeros(shape[1])}
    one_zero_row = normal * (np.arange(shape[0]) > 0)[:, None]
    for format in map(parse_format, ODD_FORMATS):
        for weight in (
            normal,
            normal * 0,
            one_zero_row,
            normal * np.float32(1e-41),
            np.sign(normal) * np.float32(3e38),
        ):
            try:
                value = quantizer.quantize(weight.astype(np.float32), format, name="unit", **context)
            except Unsupported:
                continue
            found = dequantize(value)
            assert found.shape == shape
            assert np.isfinite(found).all()
            assert weight.any() or np.abs(found).max(initial=0) < 1e-6
