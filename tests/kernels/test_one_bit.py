"""One bit and signs, native against numpy: byte for byte, whatever the floats and however ragged the groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import IntFormat, parse_format
from gpu_kernels import build, kernels, reference_quantize
from gpu_kernels.library import library
from quantizers import rtn
from quantizers.base import Quantized
from tests.kernels.test_native import SPEEDS
from tests.kernels.test_panels import KINDS, NATIVE, weights


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    build.build()
    library.cache_clear()


def in_numpy(weight: np.ndarray, format: IntFormat) -> Quantized:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtn, "rtn_pack", lambda *a, **k: None)
        found = rtn.QUANTIZER.quantize(weight, format)
    assert isinstance(found, Quantized)
    return found


@NATIVE
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["int1", "int1-sym", "sign"]), st.integers(1, 5), st.integers(1, 150),
    st.sampled_from([1, 7, 32, 64, 100, 0]), st.sampled_from(KINDS), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_one_bit_equals_numpy(kind: str, rows: int, columns: int, group: int, dtype: str, seed: int) -> None:
    format = parse_format(f"{kind}-{f'g{group}' if group else 'channel'}")
    assert isinstance(format, IntFormat)
    stored = weights(np.random.default_rng(seed), (rows, columns), columns, dtype)
    expected = in_numpy(reference_quantize.to_float32(stored), format)
    for fast in SPEEDS:
        found = kernels.rtn_pack(
            stored, 1, format.symmetric, group or columns, rtn.corrects(format), signs=format.centered, fast=fast
        )
        assert isinstance(found, tuple)
        assert np.array_equal(found[0], expected.words)
        assert np.array_equal(found[1].view(np.uint16), expected.scales.view(np.uint16))
        assert found[2] is None if expected.zeros is None else np.array_equal(found[2], expected.zeros)


@NATIVE
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 256), (3, 288), (2, 600), (5, 32), (1, 8 * 32 * 3 + 7)])
def test_signs_of_eight_groups_at_a_time_equal_numpy(rows: int, columns: int, dtype: str) -> None:
    format = parse_format("sign-g32")
    assert isinstance(format, IntFormat)
    stored = weights(np.random.default_rng(columns), (rows, columns), columns, dtype)
    expected = in_numpy(reference_quantize.to_float32(stored), format)
    for fast in SPEEDS:
        found = kernels.rtn_pack(stored, 1, True, 32, True, signs=True, fast=fast)
        assert isinstance(found, tuple)
        assert np.array_equal(found[0], expected.words)
        assert np.array_equal(found[1].view(np.uint16), expected.scales.view(np.uint16))


@NATIVE
@pytest.mark.parametrize("fast", SPEEDS)
@pytest.mark.parametrize("at", [5, 250, 256 + 40, 511])
def test_one_bad_number_among_eight_groups_is_told(at: int, fast: int) -> None:
    for bad, status in ((np.nan, kernels.NOT_FINITE), (-np.inf, kernels.NOT_FINITE), (3e38, kernels.SCALE_TOO_LARGE)):
        weight = np.ones((1, 512), np.float32)
        weight[0, at] = bad
        assert kernels.rtn_pack(weight, 1, True, 32, True, signs=True, fast=fast) == status


@NATIVE
def test_signs_of_long_groups_add_up_in_the_same_order() -> None:
    weight = np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32)
    for name in ("sign-channel", "int1-sym-channel", "int1-channel"):
        format = parse_format(name)
        assert isinstance(format, IntFormat)
        found = rtn.QUANTIZER.quantize(weight, format)
        assert isinstance(found, Quantized)
        assert np.array_equal(found.scales, in_numpy(weight, format).scales)
        assert np.array_equal(found.codes, in_numpy(weight, format).codes)


@NATIVE
@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("fast", SPEEDS)
def test_one_bit_says_what_is_no_number_or_no_scale(signs: bool, fast: int) -> None:
    weight = np.ones((2, 40), np.float32)
    for bad, status in ((np.nan, kernels.NOT_FINITE), (-np.inf, kernels.NOT_FINITE), (3e38, kernels.SCALE_TOO_LARGE)):
        weight[1, 39] = bad
        assert kernels.rtn_pack(weight, 1, True, 32, True, signs=signs, fast=fast) == status
